"""An integer network as an ordinary torch module, and as a program that needs torch alone.

The module multiplies whole floats, as the package's evaluation does, and gives the same logits to
the last bit. ``torch.export`` writes it: a file is loaded by ``torch.export.load(path)`` and
called as ``program.module()(images)``, wherever torch runs. Beside the program, the archive holds
the network itself and checksums of all its members.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apq_moo.deploy.integers import HALF, Grid, IntegerLayer, IntegerNetwork, Singles
from apq_moo.deploy.readback import Seen, policy_of, weight_bits
from apq_moo.deploy.storage import network_bytes, parse_network
from apq_moo.errors import UserError, shown
from apq_moo.files import parse_json, read_bytes, replacing
from apq_moo.npz import open_zip
from apq_moo.space import Subnet

FORMAT = "apq-moo torch program 1"
_EXACT = 2**24
_BATCH = 200
_MAX_BYTES = 2**29
_NETWORK, _ABOUT = "apq_moo.safetensors", "apq_moo.json"


class TorchLayer(nn.Module):
    """One layer: levels of its input, exact sums, gain, bias and what follows them."""

    weight: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, layer: IntegerLayer) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(layer.weight.copy()))
        for name in ("gain", "bias"):
            value = torch.from_numpy(getattr(layer, name).copy()).view(1, -1, 1, 1)
            self.register_buffer(name, value)
        self._shape = layer.shape
        self._input, self._output, self._total = layer.input, layer.output, layer.total
        self._kind = torch.float64 if layer.largest_sum > _EXACT else torch.float32

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        """Run the layer on ``(n, c, h, w)``; ``held`` is what its shortcut adds, if it has one."""
        shape = self._shape
        if shape.bias:
            x = x.double().mean(dim=(2, 3), keepdim=True).float()
        levels, weight = _levels(x, self._input).to(self._kind), self.weight.to(self._kind)
        sums = F.conv2d(levels, weight, None, shape.stride, shape.padding, 1, shape.groups).float()
        if shape.kernel > 1 and shape.groups == 1:
            sums = sums.round()  # after an algorithm such as Winograd's
        x = sums * self.gain + self.bias
        if shape.activation is not None:
            x = x.clamp(0, 6)
        if self._output is not None:
            x = _levels(x, self._output) * self._output.step
        if shape.closes_shortcut:
            x = x + held
        if self._total is not None:
            x = _levels(x, self._total) * self._total.step
        return x.half().float() if shape.between_bits == HALF else x


class TorchNetwork(nn.Module):
    """A whole network, in evaluation mode, from images ``(n, c, h, w)`` to logits ``(n, classes)``.

    Args:
        network: any.

    Attributes:
        layers: in order, by names such as ``block3_expand``.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__()
        named = {layer.name.replace(".", "_"): TorchLayer(layer) for layer in network.layers}
        self.layers = nn.ModuleDict(named)
        self._opens = [layer.shape.opens_shortcut for layer in network.layers]
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape ``(n, classes)``."""
        x = held = images
        for layer, opens in zip(self.layers.values(), self._opens, strict=True):
            if opens:
                held = x
            x = layer(x, held)
        return x.flatten(1)


def _levels(x: Tensor, grid: Grid) -> Tensor:
    return (x * float(grid.inverse)).round().clamp(grid.low, grid.high)


@dataclass(frozen=True, eq=False)
class TorchFile:
    """A program that was exported here.

    Attributes:
        network: what it computes.
        program: the exported one.
    """

    network: IntegerNetwork
    program: torch.export.ExportedProgram


def save_torch(path: str | Path, network: IntegerNetwork) -> None:
    """Write a network as a program of ``torch.export``, by custom ``.pt2``, atomically.

    Raises:
        UserError: it cannot be written.
    """
    module = TorchNetwork(network)
    image = torch.zeros(2, *network.image_shape)
    batch = torch.export.Dim("n", min=1, max=2**16)
    program = torch.export.export(module, (image,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that exported
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/{_NETWORK}", network_bytes(network))
        about = {"format": FORMAT, "torch": torch.__version__, "sha256": _checksums(archive)}
        archive.writestr(f"{root}/{_ABOUT}", json.dumps(about))
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _checksums(archive: zipfile.ZipFile) -> dict[str, str]:
    return {
        name: hashlib.sha256(archive.read(name)).hexdigest()
        for name in archive.namelist()
        if not name.endswith(f"/{_ABOUT}")
    }


def load_torch(path: str | Path) -> TorchFile:
    """Read what :func:`save_torch` wrote.

    A program is code: checksums tell damage, and not whether its maker is to be trusted.

    Raises:
        UserError: see :func:`read_program`; or this version of torch cannot load it.
    """
    network, data, written = read_program(path)
    try:
        return TorchFile(network, torch.export.load(io.BytesIO(data)))
    except Exception as error:  # such as of an operator that an older torch has not
        raise UserError(
            f"torch {torch.__version__} cannot load {path}, which torch {shown(written)} wrote; "
            "use that version, or export it again"
        ) from error


def read_program(path: str | Path) -> tuple[IntegerNetwork, bytes, object]:
    """The network that a program computes, by what its archive says; nothing of it is run.

    Returns:
        The network, the file's bytes, and the version of torch that wrote them.

    Raises:
        UserError: it is missing, damaged, altered, or was not exported here.
    """
    data = read_bytes(path, _MAX_BYTES)
    try:
        with open_zip(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise UserError(f"cannot read {path}: it unpacks to more than {_MAX_BYTES:,} bytes")
            members = {name.partition("/")[2]: name for name in archive.namelist()}
            if _ABOUT not in members or _NETWORK not in members:
                raise UserError(f"{path} was not exported by apq-moo: it lacks {_ABOUT!r}")
            about = parse_json(archive.read(members[_ABOUT]), f"{_ABOUT} of {path}")
            checksums, inside = _checksums(archive), archive.read(members[_NETWORK])
    except UserError:
        raise
    except Exception as error:  # of a damaged archive, almost any
        raise UserError(f"cannot read {path}: it is damaged, or no program of torch") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{path} was exported by another version of apq-moo; export it again")
    if about.get("sha256") != checksums:
        raise UserError(f"{path} is damaged or altered: its checksums do not match")
    return parse_network(inside, str(path)), data, about.get("torch")


def torch_logits(file: TorchFile, images: Singles) -> Singles:
    """Logits that a program gives, see :func:`module_logits`."""
    return module_logits(file.program.module(), images)


@torch.no_grad()
def module_logits(module: nn.Module, images: Singles) -> Singles:
    """Logits of images of shape ``(n, c, h, w)``, both as numpy's arrays."""
    parts = [module(part) for part in torch.from_numpy(images).split(_BATCH)]
    logits: Singles = torch.cat(parts).numpy()
    return logits


def torch_policy(file: TorchFile) -> Subnet:
    """The policy that a program's graph and weights show.

    Raises:
        UserError: it is not that of a network.
    """
    program = file.program
    buffers = program.graph_signature.inputs_to_buffers
    seen = {}
    for node in program.graph.nodes:
        if "conv2d" not in str(node.target):
            continue
        weight, levels = node.args[1], node.args[0]
        while weight.op != "placeholder":
            weight = weight.args[0]
        while "clamp" not in str(levels.target):
            levels = levels.args[0]
        name = buffers[weight.name]
        values = program.state_dict[name].numpy()
        low, high = levels.args[1:3]
        layer = name.split(".")[1].replace("_", ".") if "block" in name else name.split(".")[1]
        bits = int(high - low).bit_length()
        seen[layer] = Seen(len(values), values.shape[-1], weight_bits(values), bits)
    origin = file.network.origin
    return policy_of(seen, origin["space_content"]["stages"], file.network.space)
