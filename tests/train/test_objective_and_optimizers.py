"""Every loss and optimizer: PyTorch's own numbers, and a problem whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `train`)")

from edge_mnv2.errors import UsageError  # noqa: E402
from edge_mnv2.train.objective import (  # noqa: E402
    LOSSES,
    Objective,
    Scale,
    Sums,
    check_loss,
    distillation,
    make_loss,
    mape,
    rmse,
)
from edge_mnv2.train.optimizers import (  # noqa: E402
    OPTIMIZERS,
    SCHEDULES,
    make_optimizer,
    parameter_groups,
    rate_at,
    set_rate,
)

TORCHS: dict[str, Callable] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.05),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
}


def line() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (64, 2) and truths of the plane 3 a - 2 b + 5."""
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, (x @ torch.tensor([[3.0], [-2.0]], dtype=torch.float64)) + 5.0


def descend(optimizer: Callable, loss: Callable, steps: int) -> tuple[list[float], torch.Tensor]:
    x, truth = line()
    weights = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    steps_taken, chosen = [], optimizer([weights])
    for _ in range(steps):
        chosen.zero_grad()
        value = loss(x @ weights[:2] + weights[2], truth)
        value.backward()
        chosen.step()
        steps_taken.append(float(value.detach()))
    return steps_taken, weights.detach()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_torchs_and_finds_the_optimum(name: str) -> None:
    ours, weights = descend(lambda parameters: make_optimizer(name, parameters, 0.05), torch.nn.functional.mse_loss, 60)
    theirs, same = descend(TORCHS[name], torch.nn.functional.mse_loss, 60)
    assert ours == theirs and torch.equal(weights, same)
    assert ours[-1] < ours[0] / 2 if name != "adagrad" else ours[-1] < ours[0]
    rate = 1.0 if name == "adagrad" else 0.05
    _, weights = descend(lambda parameters: make_optimizer(name, parameters, rate), torch.nn.functional.mse_loss, 600)
    torch.testing.assert_close(weights.flatten(), torch.tensor([3.0, -2.0, 5.0]).double(), atol=0.06, rtol=0)


@pytest.mark.parametrize("name", ["mse", "rmse", "mape"])
def test_a_loss_of_values_finds_the_plane(name: str) -> None:
    def falling(parameters: list) -> torch.optim.Optimizer:
        return make_optimizer("adam", parameters, 0.05)

    values, weights = descend(falling, make_loss(name, "regression"), 800)
    assert values[-1] < values[0] / 10
    torch.testing.assert_close(weights.flatten(), torch.tensor([3.0, -2.0, 5.0]).double(), atol=0.1, rtol=0)


def test_losses_are_their_formulas() -> None:
    outputs = torch.randn(9, 1, generator=torch.Generator().manual_seed(2), requires_grad=True)
    truth = torch.randn(9, 1, generator=torch.Generator().manual_seed(3)) + 4.0
    torch.testing.assert_close(rmse(outputs, truth), torch.nn.MSELoss()(outputs, truth).sqrt())
    torch.testing.assert_close(mape(outputs, truth), ((outputs - truth) / truth).abs().mean())
    (slope,) = torch.autograd.grad(rmse(truth.requires_grad_(), truth.detach()), truth)
    assert torch.isfinite(slope).all()
    assert torch.isfinite(mape(outputs, torch.zeros(9, 1)))
    logits, classes = torch.randn(8, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    torch.testing.assert_close(
        make_loss("cross-entropy", "classification", class_weights=weights, smoothing=0.1)(logits, classes),
        torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=0.1)(logits, classes),
    )
    answers = torch.nn.functional.one_hot(classes, 4).float()
    torch.testing.assert_close(
        make_loss("mse", "classification")(logits, classes), torch.nn.MSELoss()(logits.softmax(1), answers)
    )


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "rmse"])
def test_a_loss_of_classes_tells_two_clouds_apart(name: str) -> None:
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(4))
    truth = (x[:, 0] > 0).long()
    weights = torch.zeros(2, 2, requires_grad=True)
    optimizer, loss = make_optimizer("adam", [weights], 0.1), make_loss(name, "classification")
    first = float(loss(x @ weights, truth).detach())
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(x @ weights, truth)
        value.backward()
        optimizer.step()
    assert float(value.detach()) < first / 2
    assert float(((x @ weights).argmax(1) == truth).float().mean()) > 0.97


@pytest.mark.parametrize(
    "name,task,smoothing,words",
    [
        ("hinge", "classification", 0.0, "cross-entropy, mse"),
        ("cross-entropy", "regression", 0.0, "mse, rmse or mape"),
        ("mape", "classification", 0.0, "divides by the truth"),
        ("mse", "classification", 0.1, "belongs to cross-entropy"),
        ("cross-entropy", "classification", 1.0, "below 1"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(name: str, task: str, smoothing: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_loss(name, task, smoothing)
    assert set(LOSSES) == {"cross-entropy", "mse", "rmse", "mape"}


def test_distillation_is_zero_for_the_teachers_own_answers_and_pulls_towards_them() -> None:
    teacher = torch.tensor([[4.0, 1.0, 0.0], [0.0, 0.5, 3.0]])
    assert float(distillation(teacher + 7.0, teacher, 4.0)) == pytest.approx(0.0, abs=1e-6)
    student = torch.zeros(2, 3, requires_grad=True)
    optimizer = make_optimizer("adam", [student], 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        distillation(student, teacher, 4.0).backward()
        optimizer.step()
    torch.testing.assert_close(student.softmax(1), teacher.softmax(1), atol=0.02, rtol=0)


def test_values_are_compared_in_their_spread_except_for_shares() -> None:
    outputs, truth = torch.tensor([[110.0], [80.0]]), torch.tensor([[100.0], [100.0]])
    scale = Scale(100.0, 10.0)
    assert float(Objective(make_loss("mse", "regression"), scale)(outputs, truth)) == pytest.approx((1 + 4) / 2)
    assert float(Objective(make_loss("mape", "regression"), scale, raw=True)(outputs, truth)) == pytest.approx(0.15)
    taught = Objective(make_loss("mse", "regression"), scale, teacher_share=0.5)
    assert float(taught(outputs, truth, outputs)) == pytest.approx(1.25)


class Small(torch.nn.Module):
    """Two layers with the names that a network's have."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Linear(6, 8).double()
        self.classifier = torch.nn.Linear(8, 1).double()
        with torch.no_grad():
            self.classifier.weight.mul_(unit)
            self.classifier.bias.mul_(unit)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).relu())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_measured_value_is_learned_in_any_unit(name: str) -> None:
    """Metres and millimetres take the same course, because loss and rates follow the spread."""
    courses = []
    for unit in (1.0, 1000.0):
        module = Small(unit)
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        truth = (x[:, :1].sin() + 3.0) * unit
        scale = Scale(float(truth.mean()), float(truth.std(unbiased=False)))
        objective = Objective(make_loss("mse", "regression"), scale)
        optimizer = make_optimizer(name, parameter_groups(module, 0.01, name, scale.spread), 0.01)
        course = []
        for _ in range(30):
            set_rate(optimizer, 0.01)
            optimizer.zero_grad()
            loss = objective(module(x), truth)
            loss.backward()
            optimizer.step()
            course.append(float(loss.detach()))
        courses.append(course)
    assert courses[0] == pytest.approx(courses[1], rel=1e-3)
    assert courses[0][-1] < courses[0][0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_warm_up_and_never_pass_the_highest_rate(name: str) -> None:
    rates = [rate_at(name, 0.4, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.4) and rates[0] == pytest.approx(0.08) and rates[4] == pytest.approx(0.4)
    assert all(a >= b for a, b in zip(rates[4:], rates[5:]))
    last = {"cosine": 0.0, "step": 0.004, "constant": 0.4}[name]
    assert rates[-1] == pytest.approx(last, abs=2e-4)


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "rmse"])
def test_a_loss_of_classes_over_a_set_is_not_the_mean_of_its_batches(name: str) -> None:
    """Weighted by class: over batches of other sizes and other classes it is that of all pictures together."""
    generator = torch.Generator().manual_seed(6)
    outputs = torch.randn(37, 4, generator=generator, dtype=torch.float64)
    truth = torch.arange(37) ** 2 % 4
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    objective = Objective(make_loss(name, "classification", class_weights=weights))
    sums, means = Sums(), []
    for part in torch.split(torch.arange(37), [5, 16, 16]):
        loss = float(objective(outputs[part], truth[part]))
        objective.add(sums, loss, None, truth[part])
        means.append(loss * len(part))
    assert objective.over(sums) == pytest.approx(float(objective(outputs, truth)), abs=1e-12)
    assert abs(sum(means) / 37 - objective.over(sums)) > 1e-5
    if name == "cross-entropy":
        expected = torch.nn.functional.cross_entropy(outputs, truth, weight=weights)
        assert objective.over(sums) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("name", ["mse", "rmse", "mape"])
def test_a_loss_of_values_over_a_set_is_that_of_evaluate(name: str) -> None:
    from edge_mnv2.evaluate.metrics import regression_errors

    generator = torch.Generator().manual_seed(7)
    truth = torch.randn(30, 1, generator=generator, dtype=torch.float64) * 3 + 2
    truth[4] = 0.0
    outputs = truth + torch.randn(30, 1, generator=generator, dtype=torch.float64)
    objective = Objective(make_loss(name, "regression"), raw=True)
    sums = Sums()
    for part in torch.split(torch.arange(30), [7, 7, 7, 9]):
        objective.add(sums, float(objective(outputs[part], truth[part])), None, truth[part])
    errors = regression_errors(truth[:, 0].tolist(), outputs[:, 0].tolist())
    assert objective.over(sums) == pytest.approx(getattr(errors, name), abs=1e-6)
