"""Build llama.cpp's own tools from the sources inside the installed llama-cpp-python's sdist.

``python -m tests.benchmarks.build_native FOLDER`` leaves ``FOLDER/bin/llama-bench`` and friends.
The binding and the tools are then of the same revision, and can be compared like with like.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

TARGETS = ("llama-bench", "llama-fit-params", "llama-quantize", "llama-server")
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


def main(folder: Path) -> None:
    """Download, unpack, configure, build."""
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    release = version("llama-cpp-python")
    (archive,) = _download(release, sources)
    with tarfile.open(archive) as tar:
        tar.extractall(sources, filter="data")
    project = sources / f"llama_cpp_python-{release}" / "vendor" / "llama.cpp"
    cmake = _cmake()
    subprocess.run([*cmake, "-S", str(project), "-B", str(folder), *_OPTIONS], check=True)
    # CMAKE_BUILD_PARALLEL_LEVEL says how many compilers; a bare --parallel starts all at once.
    subprocess.run([*cmake, "--build", str(folder), "--target", *TARGETS], check=True)


def _download(release: str, folder: Path) -> list[Path]:
    """The sdist, fetched by pip from wherever pip is told to fetch."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
         "llama-cpp-python", f"llama-cpp-python=={release}", "--dest", str(folder)],
        check=True,
    )  # fmt: skip
    return list(folder.glob(f"llama_cpp_python-{release}.tar.gz"))


def _cmake() -> list[str]:
    """CMake from its Python package, so that nothing but a compiler must be there."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "cmake"], check=True)
    return [str(Path(sys.executable).parent / "cmake")]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
