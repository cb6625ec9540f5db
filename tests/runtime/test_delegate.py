import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.delegate import DelegateSpec, parse


@pytest.mark.parametrize(
    ("text", "spec", "option"),
    [
        ("none", DelegateSpec("none"), ""),
        ("auto", DelegateSpec("auto"), ""),
        ("edgetpu", DelegateSpec("edgetpu"), ""),
        ("edgetpu:0", DelegateSpec("edgetpu", None, 0), ":0"),
        ("edgetpu:12", DelegateSpec("edgetpu", None, 12), ":12"),
        ("edgetpu:usb", DelegateSpec("edgetpu", "usb"), "usb"),
        ("edgetpu:usb:1", DelegateSpec("edgetpu", "usb", 1), "usb:1"),
        ("edgetpu:pci", DelegateSpec("edgetpu", "pci"), "pci"),
        (" EdgeTPU:pci:0 ", DelegateSpec("edgetpu", "pci", 0), "pci:0"),
    ],
)
def test_what_delegate_may_say(text: str, spec: DelegateSpec, option: str) -> None:
    assert parse(text) == spec
    assert parse(text).option == option
    assert parse(str(parse(text))) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tpu",
        "edgetpu:",
        "edgetpu:usb:",
        "edgetpu:gpu",
        "edgetpu:-1",
        "edgetpu:1:usb",
        "edgetpu:٣",
        "auto:0",
        "none:0",
    ],
)
def test_anything_else_is_a_usage_error_that_names_the_choices(text: str) -> None:
    with pytest.raises(UsageError, match="edgetpu:usb") as caught:
        parse(text)
    assert caught.value.exit_code == 2
