"""Scores a subnet by numpy alone, as supernet.md says: plain_subnet.py SPACE NETWORK [FILE]."""

import json
import sys

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.space import load_space


def logits_of(space, tensors, subnet, calibration, images):
    """Logits of images ``(n, c, h, w)``, which run behind those that calibrate."""
    n, ranges = len(calibration), dict(stored_ranges(space, tensors))

    def levels(x, place, bits):
        if bits == 32:
            return x, np.single(1)
        low, high = ranges[place, bits]
        step = max(high - low, 1e-8) / (2**bits - 1)
        zero = round(-low / step)
        rounded = np.rint(x * (np.single(1) / np.single(step)))
        return np.clip(rounded, -zero, 2**bits - 1 - zero), np.single(step)

    kept = x = np.concatenate([calibration, images]).transpose(0, 2, 3, 1)
    for layer in space.layers(subnet):
        name = layer.name if layer.block is None else f"blocks.{layer.block}.{layer.place}"
        kept = x if layer.opens_shortcut else kept
        x = np.single(x.mean((1, 2), np.double, keepdims=True)) if layer.bias else x
        weight, size = weight_levels(tensors, name, layer)
        x, step = levels(x, layer.name, layer.a_bits)
        x, unit = convolve(x, weight, layer.stride), np.double(size) * np.double(step)
        if layer.bias:  # the classifier
            gain, bias = 1.0, tensors[f"{name}.bias"]
        else:
            mean, squares = (np.mean(np.double(x[:n]) ** p, (0, 1, 2)) for p in (1, 2))
            var = np.single(np.maximum(squares - mean * mean, 0) * unit * unit)
            gain = tensors[f"{name}.norm.weight"][: layer.c_out] / np.sqrt(np.double(var) + 1e-5)
            bias = tensors[f"{name}.norm.bias"][: layer.c_out] - np.single(mean * unit) * gain
        x = x * np.single(gain * unit) + np.single(bias)
        x = np.clip(x, 0, 6) if layer.activation else x
        stored = 8 if layer.between_bits == 8 else 32
        x = np.multiply(*levels(x, f"{layer.part}.output", stored))
        if layer.closes_shortcut:
            x = np.multiply(*levels(x + kept, f"{layer.part}.total", stored))
        x = np.single(np.half(x)) if layer.between_bits == 16 else x
    return x[n:, 0, 0]


def stored_ranges(space, tensors):
    """Bottom and top by place and bits."""
    spec, signed = space.spec, {}
    for layer in space.layers(space.decode(space.largest())[0]):
        signed[layer.name] = layer.signed
        if layer.between_bits == 8:
            signed[f"{layer.part}.output"] = not layer.activation
            signed |= {f"{layer.part}.total": True} if layer.closes_shortcut else {}
    offered = {spec.fixed_bits}.union(*spec.bits.values(), [8] * (spec.between_bits == 8))
    for place, tops in zip(signed, tensors.get("ranges", ()), strict=False):
        for bits, top in zip(sorted(offered - {32}), map(float, tops), strict=True):
            bottom = -top * (2 ** (bits - 1) / (2 ** (bits - 1) - 1)) if signed[place] else 0.0
            yield (place, bits), (float(np.single(bottom)), top)


def weight_levels(tensors, name, layer):
    """Levels of a layer's weight, and the size of each output channel's."""
    weight = tensors[f"{name}.weight"][: layer.c_out, : layer.c_in]
    while weight.ndim == 4 and (large := weight.shape[-1]) > layer.kernel:
        (transform,) = (tensors[key] for key in tensors if f"{name}.transforms.{large}to" in key)
        crop = (large - round(len(transform) ** 0.5)) // 2
        centre = weight[:, :, crop:-crop, crop:-crop]
        flat = np.double(centre.reshape(len(centre), -1)) @ np.double(transform)
        weight = np.single(flat).reshape(centre.shape)
    weight = weight.reshape(*weight.shape[:2], layer.kernel, layer.kernel)
    largest, top = np.abs(weight).max((1, 2, 3), initial=1e-8), 2 ** (layer.w_bits - 1) - 1
    size = np.single(np.double(largest) / top)
    return np.clip(np.rint(weight * (1 / size)[:, None, None, None]), -top, top), size


def convolve(x, weight, stride):
    """Zero-padded sums over ``(n, h, w, c)``, exact for integers, then rounded to single."""
    edge, kernel = (weight.shape[-1] // 2,) * 2, weight.shape[2:]
    padded = np.pad(np.double(x), [(0, 0), edge, edge, (0, 0)])
    seen = sliding_window_view(padded, kernel, (1, 2))[:, ::stride, ::stride]
    if weight.shape[1] < x.shape[3]:  # depthwise
        return np.single(np.einsum("nhwcij,cij->nhwc", seen, weight[:, 0]))
    return np.single(np.einsum("nhwcij,ocij->nhwo", seen, weight, optimize=True))


if __name__ == "__main__":
    space, value = load_space(sys.argv[1]), json.loads(sys.argv[2])
    (subnet,) = space.decode(space.encode([value]) if isinstance(value, dict) else value)
    tensors = load_file(sys.argv[3] if sys.argv[3:] else find_assets(space).path(SUPERNET))
    images = load_images(space.spec.images)
    logits = logits_of(space, tensors, subnet, images.calibration.images, images.validation.images)
    print(f"{100 * np.mean(logits.argmax(1) == images.validation.labels):.2f} % right")
