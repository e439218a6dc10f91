"""A device of one's own: a roofline, whose layers take the longer of computing and moving data.

In a package of your own declare an entry point, for `--device roofline` (see docs/extending.md):

    [project.entry-points."apq_moo.devices"]
    roofline = "my_plugins:Roofline"
"""

from dataclasses import asdict, dataclass

import numpy as np
from moocore import hypervolume
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.optimize import minimize

from apq_moo.files import digest_of, sha256
from apq_moo.hardware import Device, cost_table
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import APQProblem


@dataclass(frozen=True)
class Roofline(Device):
    """Operands have up to 8 bits."""

    name = "roofline"
    gmacs_per_s: float = 64.0  # at 8 bits; half the bits of an operand double it
    gbytes_per_s: float = 1.0
    pj_per_mac: float = 0.4
    pj_per_byte: float = 20.0

    @property
    def digest(self):
        """Compiled tables are kept on disk under this, so it covers all that costs depend on."""
        return digest_of([asdict(self), sha256(__file__)])

    def layer_costs(self, layers):
        """Latency in ms and energy in mJ; inf where the device cannot run a layer."""
        w, a = np.array([(layer.w_bits, layer.a_bits) for layer in layers]).reshape(-1, 2).T
        macs = np.array([layer.macs for layer in layers]) * w * a / 64
        inputs = np.array([layer.c_in * layer.size**2 for layer in layers])
        moved = (inputs * a + np.array([layer.weights for layer in layers]) * w) / 8
        latency = np.maximum(macs / self.gmacs_per_s, moved / self.gbytes_per_s) * 1e-6
        energy = (macs * self.pj_per_mac + moved * self.pj_per_byte) * 1e-9
        latency[np.maximum(w, a) > 8] = energy[np.maximum(w, a) > 8] = np.inf
        return {"latency": latency, "energy": energy}


if __name__ == "__main__":
    problem = APQProblem("digits", ("acc", "energy"), {"latency": 0.02}, device=Roofline())
    drawn = problem.region.sample(2000, np.random.default_rng(0))
    published = cost_table(problem.space, "latency", "bitfusion")(drawn)
    runs = np.isfinite(published)  # bitfusion cannot run some of what the roofline can
    ours = problem.evaluate_raw(drawn)["latency"]
    print(f"latency: Kendall tau to bitfusion {kendall_tau(published[runs], ours[runs]):.3f}")
    F = minimize(problem, NSGA2(**problem.operators()), ("n_eval", 2000), seed=0).F
    limit = F[:, 1].max()
    shares = [hypervolume(f / [100, limit], ref=[0, 1]) for f in (F, problem.evaluate(drawn)[0])]
    print(f"hypervolume {shares[0]:.4f}, random draws {shares[1]:.4f}")
