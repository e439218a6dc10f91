"""Classifies: python classify.py NET.onnx PICTURE ...; needs onnxruntime, numpy and Pillow."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def values(path: str, mode: str, size: int, divided_by: int, **_: str) -> np.ndarray:
    """A picture as the network reads it: upright, its shorter side scaled, the middle cut out."""
    image = ImageOps.exif_transpose(Image.open(path)).convert(mode)
    short = min(image.size)
    wide, high = (int(size * side / short) for side in image.size)
    image = image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32)
    return pixels.reshape(1, size, size, -1).transpose(0, 3, 1, 2) / np.float32(divided_by)


def main(network: str, *pictures: str) -> None:
    """Print the class of each picture, and how sure the network is."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    classes = json.loads(about["classes"])
    for path in pictures:
        image = values(path, **json.loads(about["preprocessing"]))
        (logits,) = session.run(["logits"], {"image": image})[0].astype(np.float64)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = int(logits.argmax())
        sys.stdout.write(f"{path}: {classes[best]} ({100 * shares[best]:.0f} %)\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
