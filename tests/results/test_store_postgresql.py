"""The store on a real PostgreSQL server, started for these tests and thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assay.errors import StoreError
from assay.results.history_report import report_history
from assay.results.record import read_records
from assay.results.series import Filter
from assay.results.store import open_store

pytestmark = pytest.mark.slow

_DEBIAN = Path("/usr/lib/postgresql")


def find_program(name: str) -> str:
    """Where a program of PostgreSQL's server is; Debian keeps them out of the path."""
    versions = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(versions[-1]) if versions else None)
    if found is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql-15 (ci/emulator.sh does)")
    return found


def find_account() -> str:
    """The account that Debian's package makes for the server."""
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("needs the account postgres to run PostgreSQL's server as root")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of the database `postgres` of a server that listens on a socket in a folder of its own."""
    initdb, control = find_program("initdb"), find_program("pg_ctl")
    # PostgreSQL refuses to run as root.
    user = {"user": find_account(), "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="assay-pg-") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user=user["user"])
        data = folder / "data"

        def run(*arguments: str) -> None:
            subprocess.run(
                arguments,
                check=True,
                cwd=folder,
                env={"PATH": os.defpath, "LC_ALL": "C", "HOME": name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                **user,
            )

        run(initdb, "-D", str(data), "-U", "assay", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={name} -c fsync=off"
        run(control, "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "-t", "60", "start")
        try:
            yield f"postgresql+psycopg://assay@/postgres?host={name}"
        finally:
            run(control, "-D", str(data), "-m", "immediate", "-w", "stop")


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """The URL of an empty database."""
    import psycopg

    address = server.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("create database records")
    yield server.replace("/postgres?", "/records?")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("drop database records with (force)")


def test_it_gives_what_the_folder_gives(url, synthetic_history, tmp_path):
    files = sorted(synthetic_history.results.iterdir())
    with open_store(url) as team, open_store(synthetic_history.results, database=tmp_path / "x") as folder:
        first, second = team.add(files[:10]), team.add([synthetic_history.results])
        assert (first.new, first.known) == (130, 0)
        assert (second.new, second.known) == (260, 130)
        assert team.series() == folder.series()
        chosen = Filter(metrics=("latency",), engines=("assay",), threads=(1,), branches=("main",))
        assert team.series(chosen) == folder.series(chosen)
        assert team.records(chosen) == folder.records(chosen)
        assert team.machines() == folder.machines()
        assert team.exclusions == ()
        steps = {(step.key, step.commit) for step in synthetic_history.steps}
        report = report_history(team, Filter())
        assert {(shift.key, shift.commit) for shift in (*report.regressions, *report.improvements)} == steps


def test_a_plain_url_takes_the_same_driver(url, synthetic_history):
    with open_store(url.replace("postgresql+psycopg", "postgresql")) as store:
        assert store.add(sorted(synthetic_history.results.iterdir())[:1]).new == 13


def test_a_fleet_pushes_at_once(url, synthetic_history):
    def push(_: int) -> int:
        with open_store(url) as store:
            return store.add([synthetic_history.results]).new

    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(push, range(4)))
    assert sum(added) == 390
    with open_store(url) as store:
        assert len(store.records()) == 390


def test_a_machine_pushes_from_its_command_line(url, synthetic_history):
    command = [sys.executable, "-m", "assay.cli.main", "results", "push", url, str(synthetic_history.results)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "390 records added, 0 were there already\n"


def test_records_of_the_first_schema_and_odd_texts_arrive(url, tmp_path, make_record):
    from assay.results.record import write_records

    odd = make_record(value=0.01175, model="naïve ☃ 'quoted' %s :x", commit=None)
    path = write_records(tmp_path, [odd, make_record(value=0.01175, note="a\0b")])
    with open_store(url) as store:
        added = store.add([path])
        assert (added.new, [exclusion.record for exclusion in added.exclusions]) == (1, [1])
        assert store.records(Filter(models=(odd.model,))) == [odd] == read_records(path)[:1]


def test_another_version_of_the_tables_is_refused(url):
    import psycopg

    with open_store(url):
        pass
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        connection.execute("update assay_about set value = '999'")
    with pytest.raises(StoreError, match="version 999"):
        open_store(url)


def test_a_database_that_is_not_there(url):
    with pytest.raises(StoreError, match="does not exist"):
        open_store(url.replace("/records?", "/none?"))


def test_tables_of_the_first_version_get_what_they_lack(url, synthetic_history):
    import psycopg

    with open_store(url) as store:
        store.add([synthetic_history.results])
        expected = store.series()
    address = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("alter table assay_records drop column method, drop column medians")
        connection.execute("update assay_about set value = '1' where name = 'version'")
    with open_store(url) as store:
        assert store.series() == expected
        assert store.add([synthetic_history.results]).new == 0
