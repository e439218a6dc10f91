"""What the supernet stands on."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pymoo", "xgboost", "sklearn", "moocore"}:
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
import apq_moo.supernet
for module in pkgutil.iter_modules(apq_moo.supernet.__path__, "apq_moo.supernet."):
    importlib.import_module(module.name)
print(*sorted({name.split(".")[1] for name in sys.modules if name.startswith("apq_moo.")}))
"""


def test_it_needs_neither_pymoo_nor_xgboost():
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    rooms = {"data", "space", "supernet"}
    above = {"hardware", "predictors", "problems", "algorithms", "study", "results", "pipeline"}
    assert rooms <= set(done.stdout.split())
    assert not above & set(done.stdout.split())
