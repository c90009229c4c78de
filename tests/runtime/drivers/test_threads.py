from __future__ import annotations

import subprocess
import sys
import textwrap


def _run(tiny_artifact, code: str, **environment: str) -> None:
    head = """
        import os, sys, threading, numpy, assay.runtime
        affinity = os.sched_getaffinity(0)
        model = assay.runtime.load(sys.argv[1], threads=2)
        import tvm_ffi
        used = tvm_ffi.get_global_func("runtime.NumThreads")
        x = numpy.ones((300, 96), numpy.float32)
        seen = []
        call = model._driver._function
        model._driver._function = lambda *a: seen.append((used(), threading.get_ident())) or call(*a)
        def run(threads):
            model.threads = threads
            model.run({"x": x})
            return seen[-1][0]
        here = threading.get_ident()
    """
    source = textwrap.dedent(head) + textwrap.dedent(code)
    command = [sys.executable, "-c", source, str(tiny_artifact)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_counts_up_to_the_first_are_used_in_the_calling_thread(tiny_artifact):
    _run(
        tiny_artifact,
        """
        assert [run(n) for n in (3, 1, 2, 3)] == [3, 1, 2, 3]
        assert {thread for _, thread in seen} == {here}
        """,
    )


def test_more_threads_than_the_pool_has_run_in_a_helper(tiny_artifact):
    _run(
        tiny_artifact,
        """
        assert [run(n) for n in (1, 2, 4, 3, 1)] == [1, 2, 4, 3, 1]
        threads = [thread for _, thread in seen]
        assert threads[0] == threads[4] == here
        assert here not in threads[1:4]
        assert threads[2] == threads[3]
        """,
    )


def test_every_calling_thread_gets_its_own(tiny_artifact):
    _run(
        tiny_artifact,
        """
        assert run(2) == 2
        results = []
        worker = threading.Thread(target=lambda: results.append(run(3)))
        worker.start()
        worker.join()
        assert results == [3]
        assert run(2) == 2
        """,
    )


def test_pool_that_tvm_made_is_no_limit(tiny_artifact):
    _run(
        tiny_artifact,
        """
        tvm_ffi.get_global_func("runtime.config_threadpool")(-3, 1, ["0"])
        assert run(2) == 2
        """,
    )


def test_errors_of_a_helper_reach_the_caller(tiny_artifact):
    _run(
        tiny_artifact,
        """
        run(1)
        def fail(*arguments):
            raise KeyError("x")
        model._driver._function = fail
        try:
            run(2)
        except KeyError:
            pass
        else:
            raise AssertionError
        """,
    )


def test_the_calling_thread_is_not_bound_and_the_environment_not_changed(tiny_artifact):
    _run(
        tiny_artifact,
        """
        assert "TVM_BIND_THREADS" not in os.environ
        run(1)
        run(2)
        assert os.sched_getaffinity(0) == affinity
        for task in os.listdir("/proc/self/task"):
            assert os.sched_getaffinity(int(task)) == affinity
        assert "TVM_BIND_THREADS" not in os.environ
        """,
    )


def test_workers_work(tiny_artifact):
    """Both threads of a run of two use the processor."""
    _run(
        tiny_artifact,
        """
        def cpu_seconds():
            times = {}
            for task in os.listdir("/proc/self/task"):
                fields = open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()
                times[task] = int(fields[11])
            return times
        tasks = set(os.listdir("/proc/self/task"))
        x = numpy.ones((4096, 96), numpy.float32)
        for _ in range(60):
            run(2)
        workers = os.listdir("/proc/self/task")
        new = set(workers) - tasks
        assert len(new) == 1
        assert cpu_seconds()[new.pop()] > 0
        """,
    )
