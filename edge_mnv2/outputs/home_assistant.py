"""What Home Assistant is told about a board, by its MQTT discovery (home-assistant.io/integrations/mqtt)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Optional

from edge_mnv2 import __version__
from edge_mnv2.outputs.mqtt_client import MqttAddress, node_of

MOST_CLASSES = 32
"""A model with more classes, such as ImageNet's thousand, gets no entity for each."""
_EVENT = "{{ {'event_type': value_json.event, 'label': value_json.label, 'best': value_json.best} | tojson }}"
# `unknown` and `unavailable` are states of Home Assistant's own, and no state is longer than 255 signs.
_CLASS = (
    "{% set name = value_json.label or 'unsure' %}"
    "{{ 'class ' ~ name if name | lower in ('unknown', 'unavailable', 'none') else name[:255] }}"
)
_SCORE = "{{ (value_json.score * 100) | round(1) if value_json.score is not none else 0 }}"
_PRESENT = "{{ (value_json.present | join(', '))[:255] if value_json.present else 'nothing' }}"
_DIAGNOSTIC = {"entity_category": "diagnostic"}
_MEASURED = {**_DIAGNOSTIC, "state_class": "measurement"}

Entity = tuple[str, dict[str, Any]]


def discovery(
    address: MqttAddress,
    host: str,
    model: str,
    labels: Sequence[str] = (),
    page: Optional[str] = None,
    taught: bool = False,
) -> list[Entity]:
    """(topic, configuration) of every entity of the board whose topics begin with `address.topic`.

    `labels` are the model's classes, `page` the address of its page where others can reach it; where the
    "unknown" of a `taught` model begins can be moved.
    """
    topic, node = address.topic, node_of(address.topic)
    state = {"state_topic": f"{topic}/state"}
    device: dict[str, Any] = {
        "identifiers": [node],
        "name": f"edge-mnv2 {host}",
        "manufacturer": "edge-mnv2",
        "model": model,
        "sw_version": __version__,
    }
    if page is not None:
        device["configuration_url"] = page
    shared = {
        "availability_topic": f"{topic}/status",
        "device": device,
        "origin": {"name": "edge-mnv2", "sw_version": __version__},
    }

    def entity(component: str, key: str, name: str, **more: Any) -> Entity:
        config = {**shared, "name": name, "unique_id": f"{node}_{key}", **more}
        return f"{address.discovery}/{component}/{node}/{key}/config", config

    def sensor(key: str, name: str, template: str, **more: Any) -> Entity:
        return entity("sensor", key, name, value_template=template, **state, **more)

    def control(component: str, key: str, name: str, **more: Any) -> Entity:
        topics = {"command_topic": f"{topic}/set/{key}", "state_topic": f"{topic}/controls"}
        return entity(component, key, name, **topics, entity_category="config", **more)

    temperature = {"device_class": "temperature", "unit_of_measurement": "°C"}
    entities = [
        sensor("label", "Class", _CLASS, icon="mdi:eye"),
        sensor("score", "Score", _SCORE, unit_of_measurement="%", state_class="measurement"),
        sensor("present", "Present", _PRESENT),
        sensor("fps", "Frames a second", "{{ value_json.fps }}", **_MEASURED),
        sensor("latency", "Latency", "{{ value_json.latency_ms }}", unit_of_measurement="ms", **_MEASURED),
        sensor("temperature", "Temperature", "{{ value_json.temp_c }}", **temperature, **_MEASURED),
        entity(
            "binary_sensor",
            "throttled",
            "Throttled",
            value_template="{{ 'ON' if value_json.throttled else 'OFF' }}",
            device_class="problem",
            **state,
            **_DIAGNOSTIC,
        ),
        entity(
            "event",
            "event",
            "Came or went",
            state_topic=f"{topic}/event",
            event_types=["appeared", "gone"],
            value_template=_EVENT,
        ),
    ]
    if len(labels) <= MOST_CLASSES:
        # Jinja reads JSON's escapes of an emoji as two signs.
        texts = {label: json.dumps(label, ensure_ascii=False) for label in labels}
        entities += [
            entity(
                "binary_sensor",
                _key_of(label),
                label.split(",")[0][:100],
                value_template=f"{{{{ 'ON' if {text} in value_json.present else 'OFF' }}}}",
                device_class="occupancy",
                **state,
            )
            for label, text in texts.items()
        ]
    if address.picture:
        entities.append(
            entity("image", "picture", "Last event", image_topic=f"{topic}/picture", content_type="image/jpeg")
        )
    if address.controls:
        slider = {"min": 0, "step": 0.01, "mode": "slider"}
        entities += [
            control("number", "threshold", "Threshold", value_template="{{ value_json.threshold }}", max=1, **slider),
            control("number", "smooth", "Smoothing", value_template="{{ value_json.smooth }}", max=0.98, **slider),
            control(
                "switch",
                "paused",
                "Paused",
                value_template="{{ 'true' if value_json.paused else 'false' }}",
                payload_on="true",
                payload_off="false",
                state_on="true",
                state_off="false",
            ),
        ]
        if taught:
            share = {"min": 0.8, "max": 0.995, "step": 0.005, "mode": "slider", "icon": "mdi:help-circle"}
            entities.append(control("number", "known", "Stay known", value_template="{{ value_json.known }}", **share))
    return entities


def _key_of(label: str) -> str:
    """A label as a part of an id: two labels never have the same."""
    plain = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")[:40]
    return f"class_{plain}_{hashlib.sha256(label.encode()).hexdigest()[:6]}"
