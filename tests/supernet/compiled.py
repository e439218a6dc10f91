"""Compiles kernels for GPUs that need not be here, and says what they take.

Run as a script: it reads launches as ``test_gpu_compiled`` records them, as JSON, and writes the
bytes of shared memory of each.
"""

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from apq_moo.supernet.gpu import convolutions, norms, weight_gradients

TYPES = {str(kind): kind for kind in (triton.language.float16, triton.language.bfloat16)}


def kernel_of(name):
    return next(
        vars(module)[name]
        for module in (convolutions, norms, weight_gradients)
        if name in vars(module)
    )


def shared_bytes(name, types, constants, warps, stages, capability):
    kernel = kernel_of(name)
    parameters = kernel.params
    signature = {p.name: kind for p, kind in zip(parameters, types, strict=False)}
    # As Triton's launch finds them: addresses and pitches are multiples of 16.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (p, kind) in enumerate(zip(parameters, types, strict=False))
        if kind[0] == "*" or (kind == "i32" and not p.do_not_specialize)
    }
    values = [TYPES.get(value, value) for value in constants]
    constexprs = {(len(types) + at,): value for at, value in enumerate(values)}
    signature |= {p.name: "constexpr" for p in parameters[len(types) :]}
    assert len(parameters) == len(types) + len(values), name
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False},
    )
    return compiled.metadata.shared


if __name__ == "__main__":
    json.dump([shared_bytes(*launch) for launch in json.load(sys.stdin)], sys.stdout)
