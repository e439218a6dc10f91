"""The whole way from a run's front, or a policy, to a folder with a network that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apq_moo.deploy.checking import Checked, check, images_for, logits_of
from apq_moo.deploy.cutting import cut_out_of_assets
from apq_moo.deploy.exporting import FORMATS, export
from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.preprocessing import preprocessing
from apq_moo.deploy.storage import save_network
from apq_moo.deploy.tuning import Tuned, TuningConfig, finetune
from apq_moo.errors import UserError, shown
from apq_moo.files import check_writable, is_folder, write_json, write_text
from apq_moo.hardware import QUANTITIES, TableDevice, cost_table, find_device
from apq_moo.results.pick import pick
from apq_moo.results.policies import read_policy
from apq_moo.space import Space, Subnet, load_space
from apq_moo.study.folder import RunFolder
from apq_moo.versions import processor, versions

NETWORK, POLICY, SCRIPT, REPORT = "net.safetensors", "policy.json", "classify.py", "report"
_COSTS = ("latency", "energy", "macs", "bitops", "params", "size", "memory")


@dataclass(frozen=True)
class Chosen:
    """A network that is to be deployed.

    Attributes:
        space: it is a member of.
        subnet: the network.
        assets: where its supernet lies; None for what ships with the package.
        predicted: objectives and costs, in natural units.
        device: the cost model of these; None where no run named one.
    """

    space: Space
    subnet: Subnet
    assets: str | None
    predicted: dict[str, float]
    device: str | None = None


def choose(
    source: str | Path,
    limits: Mapping[str, float] | None = None,
    *,
    knee: bool = False,
    space: str | None = None,
    assets: str | None = None,
) -> Chosen:
    """Choose the network of a run, or that of a policy's file.

    Args:
        source: a run's folder, or a policy as JSON.
        limits: see :func:`apq_moo.results.pick.pick`; of runs only.
        knee: likewise.
        space: of a policy, see :func:`apq_moo.results.policies.read_policy`.
        assets: instead of the run's, or those that ship with the package.

    Raises:
        UserError: there is no such run or policy, it is an exported network, or no network of it
            meets the limits.
    """
    if not is_folder(source):
        if limits or knee:
            raise UserError(f"{source} is one network, of which nothing can be picked by limits")
        if Path(source).name.lower().endswith(tuple(of.suffix for of in FORMATS.values())):
            raise UserError(
                f"{source} is a network that was written before; name a policy (.json), a run, or "
                "the network's own file (.safetensors) where one is read"
            )
        return Chosen(*read_policy(source, space), assets, {})
    if space is not None:
        raise UserError(f"space={space}: the run in {source} has a space of its own")
    folder = RunFolder.open(source)
    config = folder.at_hand
    found = pick(folder, limits or {}, knee=knee)
    loaded = load_space(config.space)
    predicted = {**_costs(loaded, found.subnet, config.device, config.missing), **found.values}
    return Chosen(loaded, found.subnet, assets or config.assets, predicted, config.device)


def _costs(space: Space, subnet: Subnet, device: str, missing: str) -> dict[str, float]:
    """All that a subnet costs, as far as a device knows."""
    X, model = space.encode([subnet]), find_device(device, missing=missing)
    names = [name for name in _COSTS if name not in ("latency", "energy") or name in model.units]
    return {name: float(cost_table(space, name, model)(X)[0]) for name in names}


def deploy(
    chosen: Chosen,
    out: str | Path,
    formats: Sequence[str] = ("onnx",),
    *,
    native_int4: bool = False,
    on: str | None = None,
    tuning: TuningConfig | None = None,
    callback: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Cut a network out, fine-tune it if asked, export and check it, and write a report.

    Args:
        chosen: the network.
        out: the folder; its files are replaced.
        formats: of :data:`FORMATS`; ONNX is written both exactly and for integer kernels.
        native_int4: whether exact ONNX stores weights of up to 4 bits two a byte.
        on: where torch runs; by default on the CPU.
        tuning: how it is fine-tuned; by default not at all.
        callback: told about every step of that, ``(steps done, in all)``.
        say: told a line of text.

    Returns:
        What ``report.json`` says.

    Raises:
        UserError: see :func:`cut_out_of_assets`, :func:`finetune`, :func:`export` and
            :func:`check`; or the folder cannot be written to.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"format={shown(unknown[0])}: known are {', '.join(FORMATS)}")
    out = Path(out)
    check_writable(out / NETWORK)
    tuned: Tuned | None = None
    if tuning is None:
        network = cut_out_of_assets(chosen.space, chosen.subnet, chosen.assets, on)
        save_network(out / NETWORK, network)
    else:
        tuned = finetune(
            chosen.space, chosen.subnet, out / NETWORK, tuning,
            assets=chosen.assets, on=on, callback=callback,
        )  # fmt: skip
        network = tuned.network
        for line in tuned.lines():
            say(line)
    write_json(out / POLICY, network.subnet.to_dict())
    files = [out / NETWORK]
    for name in formats:
        files += _exported(network, out, name, native_int4=native_int4)
    images = images_for(network)
    known, checked = (network, logits_of(network, images)), []
    for path in files:
        checked.append(check(path, images, known))
        for line in checked[-1].lines():
            say(line)
    if "onnx" in formats:
        shutil.copyfile(Path(__file__).with_name(SCRIPT), out / SCRIPT)
    report = _report(chosen, network, checked)
    report["finetuning"] = None if tuned is None else tuned.to_dict()
    write_json(out / f"{REPORT}.json", report)
    write_text(out / f"{REPORT}.md", markdown(report, checked))
    return report


def _exported(network: IntegerNetwork, out: Path, name: str, *, native_int4: bool) -> list[Path]:
    if name == "network":
        return []
    path = out / f"net{FORMATS[name].suffix}"
    if name != "onnx":
        export(network, path, name)
        return [path]
    export(network, path, name, native_int4=native_int4)
    fused = path.with_name("net-fused.onnx")
    export(network, fused, name, arithmetic="fused")
    return [path, fused]


def _report(chosen: Chosen, network: IntegerNetwork, checked: Sequence[Checked]) -> dict[str, Any]:
    return {
        "format": "apq-moo deployment 1",
        "policy": network.subnet.to_dict(),
        "origin": network.origin,
        "accuracy": checked[0].accuracy,
        "predicted": chosen.predicted,
        "measured": _measured(chosen, checked),
        "device": chosen.device,
        "files": {Path(found.path).name: found.to_dict() for found in checked},
        "classes": list(network.classes),
        "preprocessing": preprocessing(network),
        "versions": versions(),
        "processor": processor(),
    }


def _measured(chosen: Chosen, checked: Sequence[Checked]) -> dict[str, float]:
    """What could be measured: accuracy, and what a table of this runtime says of latency."""
    measured = {"acc": checked[0].accuracy["validation"]}
    device = find_device(chosen.device) if chosen.device is not None else None
    if isinstance(device, TableDevice):
        backend = device.table.provenance.get("measured")
        if isinstance(backend, dict) and backend.get("backend") == "onnxruntime":
            times = [found.latency_ms["file"] for found in checked if found.latency_ms]
            measured |= {"latency": times[-1]} if times else {}
    return measured


def markdown(report: Mapping[str, Any], checked: Sequence[Checked]) -> str:
    """A report for people."""
    lines = [
        "# A network that runs",
        "",
        "| | predicted | measured |",
        "|---|---|---|",
    ]
    both = {"acc": "", **report["predicted"]}
    for name, value in both.items():
        cells = (_cell(value), _cell(report["measured"].get(name, "")))
        what = "acc on validation images (%)" if name == "acc" else _named(name)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    lines.append(f"| acc on test images (%) | | {_cell(report['accuracy']['test'])} |")
    if report["finetuning"] is not None:
        for split, value in report["finetuning"]["inherited"].items():
            lines.append(f"| the same on {split} images before fine-tuning | | {_cell(value)} |")
    for found in checked:
        name = Path(found.path).name
        lines.append(f"| bytes of {name} | | {found.bytes:,} |")
        if found.latency_ms:
            lines.append(f"| one image by {name} (ms) | | {found.latency_ms['file']:.3g} |")
            lines.append(f"| the same in floats (ms) | | {found.latency_ms['floats']:.3g} |")
    lines += ["", "| block | kernel | channels | pointwise | depthwise |", "|---|---|---|---|---|"]
    for number, block in enumerate(report["policy"]["blocks"]):
        lines.append(
            f"| {number} (stage {block['stage']}) | {block['kernel']} | {block['channels']} | "
            f"W{block['w_pw']}A{block['a_pw']} | W{block['w_dw']}A{block['a_dw']} |"
        )
    for found in checked:
        lines += ["", f"## {Path(found.path).name}", ""]
        lines += [f"* {line}" for line in found.lines()[2:]] or ["* the network itself"]
    classes = ", ".join(report["classes"])
    lines += ["", f"Classes: {classes}. Preprocessing: {json.dumps(report['preprocessing'])}", ""]
    return "\n".join(lines)


def _named(name: str) -> str:
    return f"{name} ({QUANTITIES.get(name).unit})"


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
