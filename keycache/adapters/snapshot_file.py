"""SnapshotFiles: the last good record of each source in a directory of this host.

For the host that starts while both Redis and the issuer are down. The records are the sealed ones
that Redis holds; whoever can write to the directory can put an older one back, within its stale
limit, and nothing more.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from keycache.core.seal import MAX_BYTES
from keycache.issuer import KeySource


class SnapshotFiles:
    """Implements `keycache.interfaces.Snapshot`. The directory is made, for this user alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def load(self, source: KeySource) -> bytes | None:
        """See `Snapshot.load`."""
        return await asyncio.to_thread(self._load, self._path(source))

    async def save(self, source: KeySource, record: bytes) -> None:
        """See `Snapshot.save`."""
        await asyncio.to_thread(self._save, self._path(source), record)

    def _path(self, source: KeySource) -> Path:
        return self._directory / f"{source.id}.record"

    def _load(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None

    def _save(self, path: Path, record: bytes) -> None:
        """Replace the file in one step: a reader, or a crash, sees the old one or the new one."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
            try:
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
