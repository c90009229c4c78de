"""The tables of a store of records, and the engines that reach them: SQLite in a file, PostgreSQL by URL.

A record lies in one row: what it is looked up by in columns, and all of it as JSON in ``body``. Its key is
the SHA-256 of what it says, so that adding a record twice changes nothing. Times are seconds since 1970.
``medians`` are those of the rounds, as JSON. Tables of version 1, which lack these and ``method``, get them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import StaticPool

from assay.errors import MissingDependencyError, StoreError, UsageError

__all__ = [
    "STORE_VERSION",
    "create_tables",
    "files",
    "insert_new",
    "metadata",
    "open_engine",
    "origins",
    "problems",
    "records",
    "store_errors",
]

STORE_VERSION = 2
# Any number: two that open an empty PostgreSQL at once take turns by it.
_LOCK = 0x6173736179
_TIMEOUT_SECONDS = 30
_ROWS_AT_ONCE = 1_000

metadata = sa.MetaData()

about = sa.Table(
    "assay_about",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

records = sa.Table(
    "assay_records",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("sizes", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("scheme", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("machine", sa.String(8), nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("artifact", sa.Text, nullable=False),
    sa.Column("commit", sa.Text),
    sa.Column("branch", sa.Text),
    sa.Column("dirty", sa.Boolean),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("commit_time", sa.BigInteger),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False, server_default="bench"),
    sa.Column("medians", sa.Text, nullable=False, server_default="[]"),
    sa.Index("assay_records_series", "metric", "model", "at"),
    sa.Index("assay_records_at", "at"),
)

# Of a folder of files: what was read from each, so that only those that changed are read again.
files = sa.Table(
    "assay_files",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("stamp", sa.Text, nullable=False),
)

origins = sa.Table(
    "assay_origins",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True, index=True),
)

problems = sa.Table(
    "assay_problems",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("path", sa.Text, nullable=False, index=True),
    sa.Column("record", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
)


def open_engine(address: str | URL) -> sa.Engine:
    """An engine for a URL of SQLite or PostgreSQL; ``postgresql://`` is taken with psycopg.

    Raises UsageError for another database or no URL, MissingDependencyError without a driver.
    """
    try:
        url = make_url(address)
    except sa.exc.ArgumentError as error:
        raise UsageError("The address of the results is neither a folder nor a URL of a database.") from error
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    backend = url.drivername.partition("+")[0]
    if backend not in ("postgresql", "sqlite"):
        raise UsageError(
            f"Results cannot be kept in {url.drivername}.",
            hint="A folder of JSON files, sqlite:///FILE and postgresql://USER@HOST/DATABASE can be used.",
        )
    options: dict[str, Any] = {}
    if backend == "sqlite":
        options["connect_args"] = {"timeout": _TIMEOUT_SECONDS}
        if not url.database:
            # Every connection to memory would be a database of its own.
            options |= {"poolclass": StaticPool}
    else:
        options["connect_args"] = {"connect_timeout": _TIMEOUT_SECONDS}
    try:
        return sa.create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "psycopg", "history") from error
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        raise UsageError(f"{_shown(url)} cannot be used: {_first_line(error)}.") from error


@contextlib.contextmanager
def store_errors(engine: sa.Engine) -> Iterator[None]:
    """Turn an error of the database raised inside into a StoreError that names it, without its password."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise StoreError(
            f"The database of results {_shown(engine.url)} failed: {_first_line(error.orig or error)}.",
            hint="Check its address, that it is running, and that you may read and write there.",
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"The database of results {_shown(engine.url)} cannot be used: {_first_line(error)}."
        ) from error


def create_tables(connection: sa.Connection) -> None:
    """Make the tables where they are missing. Raises StoreError for those of another version."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    metadata.create_all(connection)
    found = connection.execute(sa.select(about.c.value).where(about.c.name == "version")).scalar()
    if found == "1":
        _add_columns(connection)
        found = str(STORE_VERSION)
    if found is None:
        insert_new(connection, about, [{"name": "version", "value": str(STORE_VERSION)}])
    elif found != str(STORE_VERSION):
        raise StoreError(
            f"The database of results {_shown(connection.engine.url)} has version {found} of the tables; "
            f"this Assay reads {STORE_VERSION}.",
            hint="Use the Assay that wrote it, or another database.",
        )


def _add_columns(connection: sa.Connection) -> None:
    """Give tables of version 1 the columns that they lack, with what the records in them say."""
    from assay.results.record import Record
    from assay.results.store_rows import columns_of_version_2

    for column in (records.c.method, records.c.medians):
        definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE {records.name} ADD COLUMN {definition}"))
    update = (
        records.update()
        .where(records.c.key == sa.bindparam("of"))
        .values(method=sa.bindparam("with_method"), medians=sa.bindparam("with_medians"))
    )
    for part in connection.execute(sa.select(records.c.key, records.c.body)).partitions(_ROWS_AT_ONCE):
        told = []
        for row in part:
            columns = columns_of_version_2(msgspec.json.decode(row.body, type=Record))
            told.append({"of": row.key, **{f"with_{name}": value for name, value in columns.items()}})
        connection.execute(update, told)
    connection.execute(about.update().where(about.c.name == "version").values(value=str(STORE_VERSION)))


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert those of ``rows`` whose primary key is not there yet; how many were."""
    if not rows:
        return 0
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    first = next(iter(table.primary_key))
    statement = insert(table).on_conflict_do_nothing().returning(first)
    return len(connection.execute(statement, list(rows)).all())


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
