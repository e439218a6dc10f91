"""Running ONNX models by ONNX Runtime, at a level of optimisation that is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.integers import Singles
from apq_moo.errors import UserError
from apq_moo.hardware.measuring.timing import EXACT_SUMS, Rule, observe, timed

Level = Literal["none", "basic", "all"]

OLDEST = (1, 18)
"""The first version of ONNX Runtime that knows the operators which are written here."""

_LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "all": "ORT_ENABLE_ALL"}
_BATCH = 200
_TIMED = Rule()


def runtime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        UserError: it is not installed, or too old.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"running ONNX models needs onnxruntime ({error}): pip install 'apq-moo[onnx]'"
        ) from error
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < OLDEST:
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} is too old: {OLDEST[0]}.{OLDEST[1]} is the "
            "first that knows opset 21; pip install -U onnxruntime"
        )
    return onnxruntime


def session(model: bytes, level: Level, optimised: Path | None = None) -> Any:
    """A session of one thread.

    Products of 8-bit integers are summed without saturation, which processors without VNNI would
    have (``session.x64quantprecision``).

    Args:
        model: serialised.
        level: of optimisation.
        optimised: a file to write what the optimisation makes of it to.

    Raises:
        UserError: see :func:`runtime`; or the model is refused.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[level])
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_SUMS)
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of the runtime's own kinds
        raise UserError(f"onnxruntime {ort.__version__} refuses the model: {error}") from error


def run(
    model: bytes, images: Singles, level: Level = "none", values: Sequence[str] = ()
) -> list[NDArray[Any]]:
    """Logits of images, and other values of a graph.

    Args:
        model: serialised.
        images: shape ``(n, c, h, w)``.
        level: of optimisation.
        values: their names, see :func:`with_outputs`.

    Returns:
        Logits of shape ``(n, classes)``, then the values, their first axis that of the images.

    Raises:
        UserError: see :func:`session`.
    """
    running = session(with_outputs(model, values) if values else model, level)
    names = ["logits", *values]
    parts = [
        running.run(names, {"image": images[first : first + _BATCH]})
        for first in range(0, len(images), _BATCH)
    ]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def with_outputs(model: bytes, values: Sequence[str]) -> bytes:
    """A model that also gives unsigned integers of 8 bits from within."""
    import onnx

    found = onnx.ModelProto.FromString(model)
    for name in values:
        found.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
        )
    serialised: bytes = found.SerializeToString()
    return serialised


def kernels(model: bytes, level: Level = "all") -> Counter[str]:
    """How many kernels of each kind run, after an optimisation."""
    import onnx

    with TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        session(model, level, path)
        graph = onnx.ModelProto.FromString(path.read_bytes()).graph
    return Counter(node.op_type for node in graph.node)


def latency_ms(model: bytes, image: Singles, level: Level = "all") -> float:
    """The median time for one image on one thread, as ``lut measure`` times networks.

    Args:
        model: serialised.
        image: shape ``(1, c, h, w)``.
        level: of optimisation.
    """
    ort, running = runtime(), session(model, level)
    binding = running.io_binding()
    binding.bind_ortvalue_input("image", ort.OrtValue.ortvalue_from_numpy(image))
    binding.bind_output("logits")
    times = observe(timed(lambda: running.run_with_iobinding(binding)), _TIMED)
    return float(np.median(times))
