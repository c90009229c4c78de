"""Products of matrices by our OpenCL kernels beside CLBlast's, on one device, in turns.

::

    python -m assay.ci.clblast 512x512x512 49x1024x512 --repeats 20

needs the extras ``compile`` and ``opencl``, a device of OpenCL, and the library CLBlast
(https://github.com/CNugteren/CLBlast; Debian's package ``libclblast1``). A size is M x N x K of ``C = A B``
in float32. Both have A, B and C in the memory of the device; a run ends when C is read back. It prints
the largest difference from NumPy's product in float64, the least and the median time, and the ratios.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, DeviceError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

__all__ = ["compare", "main"]

_REPEATS = 20
_ROW_MAJOR, _NO_TRANSPOSE = 101, 111  # CLBlastLayout and CLBlastTranspose of clblast_c.h


def compare(rows: int, columns: int, depth: int, repeats: int = _REPEATS) -> str:
    """One line about a product of [rows, depth] and [depth, columns].

    Raises MissingDependencyError without CLBlast or pyopencl, and DeviceError without a device.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    a = generator.standard_normal((rows, depth)).astype(np.float32)
    b = generator.standard_normal((depth, columns)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    forms = {"ours": _ours(a, b), "CLBlast": _clblast(a, b)}
    errors = {name: float(np.max(np.abs(run() - exact))) for name, run in forms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    parts = [
        f"{name} {min(times) * 1e3:.3f} ms least, {statistics.median(times) * 1e3:.3f} ms median, "
        f"error {errors[name]:.1e}"
        for name, times in seconds.items()
    ]
    least = min(seconds["CLBlast"]) / min(seconds["ours"])
    median = statistics.median(seconds["CLBlast"]) / statistics.median(seconds["ours"])
    return f"{rows}x{columns}x{depth}: {'; '.join(parts)}; CLBlast/ours {least:.2f} and {median:.2f}"


def _ours(a: Matrix, b: Matrix) -> Callable[[], Matrix]:
    """The product as a model of one operator, its input kept on the device."""
    import onnx

    from assay.compile.importer import import_onnx
    from assay.compile.lower_device import lower_device
    from assay.compile.profiles import profiles
    from assay.compile.targets import gpu_targets
    from assay.runtime.devices import open_device
    from assay.runtime.drivers.plan_device import DeviceCalls

    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [tensor("a", onnx.TensorProto.FLOAT, a.shape)],
        [tensor("c", onnx.TensorProto.FLOAT, [a.shape[0], b.shape[1]])],
        [onnx.numpy_helper.from_array(b, "b")],
    )
    opset = onnx.helper.make_opsetid("", 18)
    form = lower_device(
        import_onnx(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)),
        target=gpu_targets()["opencl"],
        profile=profiles()["release"],
        sizes={},
        maxima={},
    )
    assert form.plan is not None
    weights = list(form.weights.values())
    calls = DeviceCalls(form.plan, open_device("opencl"), form.executable.files, weights, ["float32"])
    calls.keep({0: a})
    return lambda: calls.call([a])[0]


def _clblast(a: Matrix, b: Matrix) -> Callable[[], Matrix]:
    import numpy as np

    try:
        import pyopencl as cl
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pyopencl", "opencl") from error
    path = ctypes.util.find_library("clblast")
    if path is None:
        raise DeviceError("The library CLBlast is not installed.", hint="On Debian: apt install libclblast1.")
    sgemm = ctypes.CDLL(path).CLBlastSgemm
    size, pointer, real = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_float
    sgemm.argtypes = [
        *(ctypes.c_int,) * 3, *(size,) * 3, real, pointer, size, size, pointer, size, size, real,
        pointer, size, size, pointer, pointer,
    ]  # fmt: skip
    device = next(device for platform in cl.get_platforms() for device in platform.get_devices())
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    flags = cl.mem_flags
    memory: list[Any] = [
        cl.Buffer(context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=each) for each in (a, b)
    ]
    c = np.empty((a.shape[0], b.shape[1]), np.float32)
    memory.append(cl.Buffer(context, flags.READ_WRITE, c.nbytes))
    handle, (rows, depth), columns = ctypes.c_void_p(queue.int_ptr), a.shape, b.shape[1]
    left, right, result = (each.int_ptr for each in memory)

    def run() -> Matrix:
        status = sgemm(
            _ROW_MAJOR, _NO_TRANSPOSE, _NO_TRANSPOSE, rows, columns, depth, 1.0, left, 0, depth, right, 0,
            columns, 0.0, result, 0, columns, ctypes.byref(handle), None,
        )  # fmt: skip
        if status != 0:
            raise DeviceError(f"CLBlast refuses the product with status {status}.")
        cl.enqueue_copy(queue, c, memory[2])
        return c.copy()

    return run


def _sizes(text: str) -> tuple[int, int, int]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{text!r} is no size.", hint="Write M x N x K as 512x512x512.")
    rows, columns, depth = map(int, parts)
    return rows, columns, depth


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 where all products ran."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.clblast", description=__doc__)
    parser.add_argument("sizes", nargs="*", default=["512x512x512"])
    parser.add_argument("--repeats", type=int, default=_REPEATS)
    chosen = parser.parse_args(arguments)
    try:
        for size in [_sizes(text) for text in chosen.sizes]:
            print(compare(*size, chosen.repeats), flush=True)
    except AssayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
