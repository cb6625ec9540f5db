"""What Home Assistant is told about a board, by its MQTT discovery (home-assistant.io/integrations/mqtt)."""

from __future__ import annotations

import re
from typing import Any

from edge_mnv2 import __version__

_EVENT = "{{ {'event_type': value_json.event, 'label': value_json.label, 'best': value_json.best} | tojson }}"


def discovery(prefix: str, topic: str, host: str, facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(topic, configuration) of every entity of the board whose topics begin with `topic`."""
    node = re.sub(r"[^A-Za-z0-9_-]+", "_", topic)
    shared = {
        "availability_topic": f"{topic}/status",
        "device": {
            "identifiers": [node],
            "name": f"edge-mnv2 {host}",
            "manufacturer": "edge-mnv2",
            "model": str(facts.get("model") or "MobileNetV2"),
            "sw_version": __version__,
        },
        "origin": {"name": "edge-mnv2", "sw_version": __version__},
    }
    state = f"{topic}/state"

    def sensor(key: str, name: str, template: str, **more: Any) -> tuple[str, dict[str, Any]]:
        entity = {"name": name, "unique_id": f"{node}_{key}", "state_topic": state, "value_template": template}
        return f"{prefix}/sensor/{node}/{key}/config", {**shared, **entity, **more}

    diagnostic = {"entity_category": "diagnostic", "state_class": "measurement"}
    return [
        sensor("label", "Class", "{{ value_json.label if value_json.label else 'unsure' }}", icon="mdi:eye"),
        sensor(
            "score",
            "Score",
            "{{ (value_json.score * 100) | round(1) if value_json.score is not none else 0 }}",
            unit_of_measurement="%",
            state_class="measurement",
        ),
        sensor("present", "Present", "{{ value_json.present | join(', ') if value_json.present else 'nothing' }}"),
        sensor("fps", "Frames a second", "{{ value_json.fps }}", **diagnostic),
        sensor("latency", "Latency", "{{ value_json.latency_ms }}", unit_of_measurement="ms", **diagnostic),
        sensor(
            "temperature",
            "Temperature",
            "{{ value_json.temp_c }}",
            device_class="temperature",
            unit_of_measurement="°C",
            **diagnostic,
        ),
        (
            f"{prefix}/binary_sensor/{node}/throttled/config",
            {
                **shared,
                "name": "Throttled",
                "unique_id": f"{node}_throttled",
                "state_topic": state,
                "value_template": "{{ 'ON' if value_json.throttled else 'OFF' }}",
                "device_class": "problem",
                "entity_category": "diagnostic",
            },
        ),
        (
            f"{prefix}/event/{node}/event/config",
            {
                **shared,
                "name": "Came or went",
                "unique_id": f"{node}_event",
                "state_topic": f"{topic}/event",
                "event_types": ["appeared", "gone"],
                "value_template": _EVENT,
            },
        ),
    ]
