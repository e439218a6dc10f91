"""ONNX Runtime on a processor: fp32 and int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from apq_moo.errors import UserError
from apq_moo.hardware.measuring.timing import EXACT_SUMS, Runner, timed
from apq_moo.space import Layer, Space, Subnet
from apq_moo.versions import processor

try:
    import onnx
    import onnxruntime

    from apq_moo.hardware.measuring import onnx_models
except ImportError as error:
    raise UserError(
        f"measuring with onnxruntime needs onnx and onnxruntime ({error}): "
        "pip install 'apq-moo[onnx]'"
    ) from error


class OnnxRuntime:
    """The processor's execution provider, one image at a time, outputs bound beforehand.

    Args:
        threads: of each operator.
        on: ``cpu``.

    Raises:
        UserError: ``on`` is something else.
    """

    bits: tuple[int, ...] = (8, 32)

    def __init__(self, threads: int, on: str) -> None:
        if on != "cpu":
            raise UserError(f"onnxruntime measures processors; on={on!r} needs torch")
        self._threads = threads

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        return {
            "backend": "onnxruntime",
            "on": "cpu",
            "threads": self._threads,
            "processor": processor(),
            "onnxruntime": onnxruntime.__version__,
            "onnx": onnx.__version__,
        }

    def layer(self, layer: Layer) -> Runner:
        """See :meth:`Backend.layer`."""
        return self._runner(onnx_models.layer_model(layer))

    def network(self, space: Space, subnet: Subnet) -> Runner:
        """See :meth:`Backend.network`."""
        return self._runner(onnx_models.network_model(space, subnet))

    def trivial(self, operators: int) -> Runner:
        """See :meth:`Backend.trivial`."""
        return self._runner(onnx_models.trivial_model(operators))

    def session(self, model: bytes) -> onnxruntime.InferenceSession:
        """An inference session of a serialised model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(*EXACT_SUMS)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _runner(self, model: bytes) -> Runner:
        session = self.session(model)
        binding = session.io_binding()
        (given,), (wanted,) = session.get_inputs(), session.get_outputs()
        kind = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[given.type]
        image = np.random.default_rng(0).integers(0, 200, given.shape).astype(kind)
        value = onnxruntime.OrtValue
        binding.bind_ortvalue_input(given.name, value.ortvalue_from_numpy(image))
        binding.bind_ortvalue_output(
            wanted.name, value.ortvalue_from_shape_and_type(wanted.shape, kind)
        )
        return timed(lambda: session.run_with_iobinding(binding))
