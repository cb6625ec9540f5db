"""TensorFlow's converter on the same network: python tensorflow_converter.py NETWORK.npz OUT.tflite

NETWORK.npz is written by `quantization.py`: the operations with their weights, and the calibration pictures. The file
that comes out is full-integer, int8 in and out, as TensorFlow's guide to post-training quantization makes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

ACTIVATIONS = {"linear": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}


def convolved(step: dict[str, Any], values: Any, weights: np.ndarray, bias: np.ndarray) -> Any:
    stride, padding = [1, step["stride"], step["stride"], 1], "SAME" if step["same"] else "VALID"
    if step["kind"] == "linear":
        return tf.matmul(values, tf.constant(weights.T)) + bias
    if step["kind"] == "depthwise":
        kernel = tf.constant(weights[0][..., np.newaxis])
        return tf.nn.bias_add(tf.nn.depthwise_conv2d(values, kernel, stride, padding), bias)
    return tf.nn.bias_add(tf.nn.conv2d(values, tf.constant(weights.transpose(1, 2, 3, 0)), stride, padding), bias)


def answer(network: Any, steps: list[dict[str, Any]], picture: Any) -> Any:
    values = {"input": picture}
    for place, step in enumerate(steps):
        first, rest = values[step["inputs"][0]], step["inputs"][1:]
        if step["kind"] == "pad":
            around = [step["before"], step["after"]]
            result = tf.pad(first, [[0, 0], around, around, [0, 0]])
        elif step["kind"] == "mean":
            result = tf.reduce_mean(first, axis=[1, 2])
        elif step["kind"] == "add":
            result = first + values[rest[0]]
        else:
            result = convolved(step, first, network[f"weights{place}"], network[f"bias{place}"])
        values[step["output"]] = ACTIVATIONS[step["activation"]](result)
    return result


def main() -> None:
    network = np.load(sys.argv[1])
    steps, pictures = json.loads(str(network["steps"])), network["pictures"]
    signature = [tf.TensorSpec((1, *pictures.shape[1:]), tf.float32)]
    function = tf.function(lambda picture: answer(network, steps, picture), input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])

    def examples() -> Iterator[list[np.ndarray]]:
        for picture in pictures:
            yield [picture[np.newaxis]]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(sys.argv[2]).write_bytes(converter.convert())


if __name__ == "__main__":
    main()
