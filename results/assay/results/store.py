"""A store of records: a folder of JSON files with an embedded database built from them, or a database by URL.

Files are those that Assay writes, or asv. The files of a folder stay the truth. Its database lies in the
user's cache folder, is brought up to date when the store is opened, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import platformdirs
import sqlalchemy as sa

from assay.errors import RecordError, StoreError, UsageError
from assay.results import store_tables as tables
from assay.results.asv_results import asv_files, is_asv_file, read_asv_results
from assay.results.record import Machine, Record, read_records
from assay.results.series import Exclusion, Filter, Point, Series
from assay.results.store_rows import point_of_row, row_of_record, series_key_of_row, unusable

__all__ = ["Added", "FolderStore", "Store", "default_database", "is_url", "open_store"]

# A file may change once more within the resolution of its time: one as young as this is read again.
_SETTLED_NANOSECONDS = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class Added:
    """What adding files did: records that were new, those that were there, and what was left out."""

    new: int
    known: int
    exclusions: tuple[Exclusion, ...] = ()


def is_url(place: str) -> bool:
    """Whether ``place`` is the URL of a database, and not a folder."""
    return "://" in place


def default_database(*folders: Path) -> Path:
    """Where the embedded database of the records in ``folders`` lies: in the user's cache folder."""
    names = "\0".join(str(folder.resolve()) for folder in folders)
    name = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("assay")) / "results" / f"{name}.sqlite"


def open_store(place: str | Path, *, database: Path | None = None, beside: Iterable[Path] = ()) -> Store:
    """The store at ``place``: a folder of record files or of asv's results, or the URL of a database.

    ``database`` is the file of a folder's embedded database, in place of the one in the user's cache folder.
    Folders ``beside``, those that are there, are read as if their files were in the folder.
    Raises UsageError where there is no such folder, StoreError where the database cannot be reached or used,
    MissingDependencyError where its driver is not installed.
    """
    if isinstance(place, str) and is_url(place):
        return Store(place)
    folders = [folder for folder in (Path(place), *beside) if folder.is_dir()]
    if not folders:
        raise UsageError(
            f"There is no folder of results {place}.", hint="`assay bench` writes records to results/runs."
        )
    return FolderStore(folders, database or default_database(*folders))


class Store:
    """Records in a database that is reached by URL: a team's PostgreSQL, or a file of SQLite."""

    def __init__(self, address: str | sa.URL) -> None:
        self._engine = tables.open_engine(address)
        try:
            with self._transaction() as connection:
                tables.create_tables(connection)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections; the store cannot be used afterwards."""
        self._engine.dispose()

    @property
    def exclusions(self) -> tuple[Exclusion, ...]:
        """What was left out of the files of a folder; of a database by URL, that is told when adding."""
        columns = tables.problems.c
        with self._transaction() as connection:
            rows = connection.execute(
                sa.select(columns.path, columns.record, columns.reason).order_by(columns.path, columns.number)
            ).all()
        return tuple(Exclusion(file=row.path, record=row.record, reason=row.reason) for row in rows)

    def add(self, paths: Iterable[Path]) -> Added:
        """Add the records of files, or of the JSON files in folders; those that are there change nothing.

        Files that cannot be read and records that mean nothing are left out, and told.
        Raises StoreError when the database fails; what was added of the files before stays.
        """
        new = known = 0
        exclusions: list[Exclusion] = []
        for path in _files_of(paths):
            records, problems = _read(path)
            # One transaction a file, its rows in the order of their keys: two pushes never wait in a circle.
            with self._transaction() as connection:
                added = tables.insert_new(connection, tables.records, records)
            new, known = new + added, known + len(records) - added
            exclusions += problems
        return Added(new=new, known=known, exclusions=tuple(exclusions))

    def series(self, chosen: Filter | None = None) -> list[Series]:
        """The series of the records that ``chosen`` takes, sorted by key; points in the order of time."""
        columns = tables.records.c
        names = (
            *("model", "sizes", "target", "scheme", "profile", "engine", "threads", "metric", "machine"),
            *("unit", "value", "low", "high", "rounds", "artifact", "commit", "branch", "dirty", "time"),
            *("commit_time", "run_id", "key", "method", "medians"),
        )
        statement = (
            sa.select(*(columns[name] for name in names))
            .where(*self._conditions(chosen))
            .order_by(columns.at, columns.time, columns.key)
        )
        with self._transaction() as connection:
            rows = connection.execute(statement).mappings().all()
        # Sorted here: databases differ in the order of texts.
        keyed = sorted(((series_key_of_row(row), row) for row in rows), key=lambda pair: pair[0])
        found = []
        for key, group in groupby(keyed, key=lambda pair: pair[0]):
            members = [row for _, row in group]
            points: tuple[Point, ...] = tuple(point_of_row(row) for row in members)
            found.append(Series(key=key, unit=members[0]["unit"], points=points))
        return found

    def records(self, chosen: Filter | None = None) -> list[Record]:
        """The records that ``chosen`` takes, with their samples, in the order of time."""
        columns = tables.records.c
        statement = (
            sa.select(columns.body)
            .where(*self._conditions(chosen))
            .order_by(columns.at, columns.time, columns.key)
        )
        return self._decoded(statement)

    def record(self, key: str) -> Record:
        """The record with a point's content key. Raises KeyError for a key that is not there."""
        columns = tables.records.c
        found = self._decoded(sa.select(columns.body).where(columns.key == key))
        if not found:
            raise KeyError(key)
        return found[0]

    def machines(self) -> dict[str, Machine]:
        """The machines that there are records of, by identity, as the latest record of each has it."""
        columns = tables.records.c
        latest = (
            sa.select(columns.machine, sa.func.max(columns.time).label("time"))
            .group_by(columns.machine)
            .subquery()
        )
        statement = sa.select(columns.body).join(
            latest, sa.and_(columns.machine == latest.c.machine, columns.time == latest.c.time)
        )
        return {record.machine.identity(): record.machine for record in self._decoded(statement)}

    def _decoded(self, statement: sa.Select[Any]) -> list[Record]:
        with self._transaction() as connection:
            bodies: Sequence[str] = connection.execute(statement).scalars().all()
        try:
            return [msgspec.json.decode(body, type=Record) for body in bodies]
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"The database of results holds a record that this Assay does not read: {error}.",
                hint="Upgrade Assay.",
            ) from error

    def _conditions(self, chosen: Filter | None) -> list[Any]:
        if chosen is None:
            return []
        columns = tables.records.c
        wanted: dict[str, Sequence[object]] = {
            "model": chosen.models,
            "target": chosen.targets,
            "scheme": chosen.schemes,
            "profile": chosen.profiles,
            "engine": chosen.engines,
            "threads": chosen.threads,
            "metric": chosen.metrics,
            "machine": chosen.machines,
            "branch": chosen.branches,
            "run_id": chosen.runs,
            "method": chosen.methods,
        }
        conditions: list[Any] = [columns[name].in_(values) for name, values in wanted.items() if values]
        if chosen.since is not None:
            conditions.append(columns.at >= int(chosen.since.timestamp()))
        if chosen.until is not None:
            conditions.append(columns.at < int(chosen.until.timestamp()))
        return conditions

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with tables.store_errors(self._engine), self._engine.begin() as connection:
            yield connection


class FolderStore(Store):
    """The records of the JSON files in folders, with an embedded database that follows them."""

    def __init__(self, folders: Sequence[Path], database: Path) -> None:
        self._folders = folders
        try:
            self._open(database)
        except StoreError:
            # A cache: damaged, of another version, or in a place that nobody may write to.
            with contextlib.suppress(OSError):
                database.unlink(missing_ok=True)
            try:
                self._open(database)
            except StoreError:
                self._open(None)

    def _open(self, database: Path | None) -> None:
        if database is not None:
            with contextlib.suppress(OSError):
                database.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(sa.URL.create("sqlite", database=str(database) if database else None))
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """Read the files that are new or changed since the last time, and forget those that are gone."""
        with self._transaction() as connection:
            # A statement that writes takes the lock at once: of two refreshes, one waits for the other.
            connection.execute(tables.files.delete().where(tables.files.c.path == ""))
            before = {row.path: row.stamp for row in connection.execute(sa.select(tables.files))}
            now = {str(path): _stamp(path) for path in _files_of(self._folders)}
            changed = [path for path, stamp in now.items() if before.get(path) != stamp]
            self._forget(connection, [*(before.keys() - now.keys()), *(before.keys() & set(changed))])
            for path in changed:
                self._take(connection, path, now[path])

    def _take(self, connection: sa.Connection, path: str, stamp: str) -> None:
        rows, exclusions = _read(Path(path))
        tables.insert_new(connection, tables.records, rows)
        tables.insert_new(connection, tables.origins, [{"path": path, "key": row["key"]} for row in rows])
        if exclusions:
            left_out = [
                {"path": path, "record": exclusion.record, "reason": exclusion.reason}
                for exclusion in exclusions
            ]
            connection.execute(tables.problems.insert(), left_out)
        connection.execute(tables.files.insert(), {"path": path, "stamp": stamp})

    def _forget(self, connection: sa.Connection, paths: Iterable[str]) -> None:
        for path in paths:
            for table in (tables.files, tables.origins, tables.problems):
                connection.execute(table.delete().where(table.c.path == path))
        kept = sa.select(tables.origins.c.key)
        connection.execute(tables.records.delete().where(tables.records.c.key.not_in(kept)))

    def add(self, paths: Iterable[Path]) -> Added:
        """Refused: a folder takes records as files. Raises UsageError."""
        raise UsageError(
            f"{self._folders[0]} takes records as files.", hint="Copy the files into the folder."
        )


def _files_of(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            of_asv = asv_files(path)
            yield from sorted(path.glob("*.json")) if of_asv is None else of_asv
        else:
            yield path


def _stamp(path: Path) -> str:
    """What changes when the file does, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return "unreadable"
    young = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED_NANOSECONDS
    settled = f"young {time.monotonic_ns()}" if young else ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {settled}".strip()


def _read(path: Path) -> tuple[list[dict[str, Any]], list[Exclusion]]:
    """Rows of the records in a file that mean something, each once, and what was left out."""
    try:
        records = read_asv_results(path) if is_asv_file(path) else read_records(path)
    except RecordError as error:
        return [], [Exclusion(file=str(path), reason=error.message)]
    rows: dict[str, dict[str, Any]] = {}
    exclusions = []
    for index, record in enumerate(records):
        reason = unusable(record)
        if reason is None:
            row = row_of_record(record)
            rows[row["key"]] = row
        else:
            exclusions.append(Exclusion(file=str(path), record=index, reason=reason))
    return sorted(rows.values(), key=lambda row: str(row["key"])), exclusions
