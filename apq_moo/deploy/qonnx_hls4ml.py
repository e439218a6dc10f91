"""QONNX files as hls4ml reads them: channels come last, and pooling is the one that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apq_moo.deploy.qonnx_files import load_qonnx
from apq_moo.deploy.qonnx_running import wrapped


def hls4ml_model(path: str | Path) -> Any:
    """What ``hls4ml.converters.convert_from_onnx_model`` takes, images ``(1, h, w, c)``.

    It is what the ``qonnx`` package makes of a file for hls4ml, but for one thing. ``qonnx`` leaves
    a transposition before the global average pooling, whose channels come first; hls4ml (1.3) reads
    the sizes so, and then averages as if channels came last, without an error. So the transposition
    is left out here and the sizes are kept, which hls4ml computes rightly.

    Args:
        path: a file that was exported here.

    Raises:
        UserError: see :func:`load_qonnx`; or ``qonnx`` is not installed.
    """
    import onnx

    model = wrapped(onnx.ModelProto.FromString(load_qonnx(path).model))
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.util.cleanup import cleanup_model

    model = cleanup_model(model)
    model = model.transform(ConvertToChannelsLastAndClean(make_input_channels_last=True))
    model = cleanup_model(model)
    (pooling,) = model.get_nodes_by_op_type("GlobalAveragePool")
    before = model.find_producer(pooling.input[0])
    if before is not None and before.op_type == "Transpose":
        sizes = model.get_tensor_shape(pooling.input[0])
        pooling.input[0] = before.input[0]
        model.set_tensor_shape(before.input[0], sizes)
        model.graph.node.remove(before)
    return model
