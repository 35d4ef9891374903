"""Unpacks libtorch from wheels: unpack_libtorch.py cpu|cuda DOWNLOADS FOLDER. Called by setup.sh.

cpu:  FOLDER/lib gets what a program on the CPU links, FOLDER/include the headers. libtorch.so itself
      becomes a one-line linker script, so that nothing links CUDA.
cuda: FOLDER gets every CUDA library that libtorch_cuda.so needs, and a link libnccl.so, the only name
      under which cudarc looks for NCCL.
"""

import os
import sys
import zipfile

CPU_LIBRARIES = {
    "libtorch_cpu.so",
    "libc10.so",
    "libgomp.so.1",
    "libcudart.so.13",
    "libcupti.so.13",
}
CUDA_FROM_TORCH = {"libc10_cuda.so", "libtorch_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"}


def wanted(kind, name):
    """Where the archive's entry `name` goes below the folder; None when it is not needed."""
    base = os.path.basename(name)
    if kind == "cpu":
        if base in CPU_LIBRARIES:
            return os.path.join("lib", base)
        if name.startswith("torch/include/") and not name.endswith("/"):
            return name[len("torch/") :]
        return None
    is_library = ".so" in base and "/lib/" in name
    return base if is_library and (not name.startswith("torch/") or base in CUDA_FROM_TORCH) else None


def unpack(kind, downloads, folder):
    for wheel in sorted(os.listdir(downloads)):
        if not wheel.endswith(".whl"):
            continue
        with zipfile.ZipFile(os.path.join(downloads, wheel)) as archive:
            for entry in archive.infolist():
                target = wanted(kind, entry.filename)
                if target is None:
                    continue
                path = os.path.join(folder, target)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(entry) as source, open(path, "wb") as out:
                    while block := source.read(1 << 22):
                        out.write(block)
    if kind == "cpu":
        missing = CPU_LIBRARIES - set(os.listdir(os.path.join(folder, "lib")))
        if missing:
            sys.exit("setup: the wheels lack " + ", ".join(sorted(missing)))
        with open(os.path.join(folder, "lib", "libtorch.so"), "w") as script:
            script.write("INPUT(libtorch_cpu.so)\n")
    else:
        os.symlink("libnccl.so.2", os.path.join(folder, "libnccl.so"))


if __name__ == "__main__":
    unpack(*sys.argv[1:])
