"""The native runtime: tables of kernels run by several threads, the pool, and the fast entry."""

import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from runtime_kernels import LENGTH, program, shifting, zeros

from stepgrad.errors import StepgradError
from stepgrad.execute.cpu import builtin, driver, platform
from stepgrad.execute.cpu.builtin import Port, fast_entry
from stepgrad.execute.cpu.pool import workers
from stepgrad.execute.cpu.words import Flag, Pool
from stepgrad.tensor import Tensor

THREADS = [1, 2, 3, 4]
INT64 = np.dtype(np.int64)


# --- threads and barriers


@pytest.mark.parametrize("threads", THREADS)
def test_each_thread_does_its_share(threads):
    a = zeros()
    made = program([("bump", 0, 1)], [a], threads)
    for _ in range(3):
        made.run()
    np.testing.assert_array_equal(a, 3)


@pytest.mark.parametrize("threads", THREADS)
def test_barriers_part_rows_and_steps(threads):
    made, a = shifting(threads)
    made.run()
    np.testing.assert_array_equal(a, 100)
    made.run(steps=20)
    np.testing.assert_array_equal(a, 2100)


@pytest.mark.parametrize("threads", THREADS)
def test_single_rows_are_done_once(threads):
    a = zeros()
    program([("single", Flag.SINGLE | Flag.BARRIER, 1)] * 7, [a], threads).run(steps=3)
    assert a[:2].tolist() == [21, 21]


@pytest.mark.parametrize("threads", THREADS)
def test_a_scan_walks_over_its_data(threads):
    xs, ys = np.arange(10 * LENGTH).reshape(10, LENGTH), np.zeros((10, LENGTH), np.int64)
    made = program([("double", 0, 1, 2)], [xs, ys], threads)
    made.set_moving([(1, xs.strides[0]), (2, ys.strides[0])])
    made.run(steps=4)
    made.run(steps=3, threads=1)  # fewer threads in between: the others must not stay behind
    made.run(steps=3)
    np.testing.assert_array_equal(ys, 2 * xs)
    assert made.moving == [(1, xs.strides[0]), (2, ys.strides[0])]


def test_moving_slots_are_not_moved_before_late_workers_have_them():
    x, y = np.arange(LENGTH), zeros()
    made = program([("double", 0, 1, 2)], [x, y], 2)
    made.set_moving([(1, 1 << 40), (2, 1 << 40)])  # an address beyond all memory
    for _ in range(300):
        made.set_slot(1, x.ctypes.data)
        made.set_slot(2, y.ctypes.data)
        y[:] = 0
        made.run()
        np.testing.assert_array_equal(y, 2 * x)


def test_each_thread_has_its_own_aligned_scratch_memory():
    made = program([], [], 3, scratch_bytes=1000)
    starts = sorted(made.addresses[:, 0].tolist())
    assert all(start % 64 == 0 for start in starts)
    assert min(np.diff(starts)) >= 1000


def test_an_empty_program_runs():
    program([], [], 2).run(steps=5)


# --- rows that Python does


@pytest.mark.parametrize("threads", THREADS)
def test_python_does_rows_between_barriers(threads):
    a, seen = zeros(), []

    def fallback(row):
        seen.append((row, threading.get_ident(), a.copy()))
        a[:] *= 10

    made = program([("bump", 0, 1), (None, Flag.FALLBACK), ("bump", 0, 1)], [a], threads, fallback=fallback)
    made.run(steps=2)
    np.testing.assert_array_equal(a, 121)
    assert [row for row, _, _ in seen] == [1, 1]
    assert {thread for _, thread, _ in seen} == {threading.get_ident()}
    assert [set(values.tolist()) for _, _, values in seen] == [{1}, {12}]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["ValueError", "KeyboardInterrupt"])
@pytest.mark.parametrize("threads", THREADS)
def test_an_exception_ends_the_run_and_comes_out(threads, error):
    a, fails = zeros(), [True]

    def fallback(row):
        if fails[0]:
            raise error

    made = program([("bump", 0, 1), (None, Flag.FALLBACK), ("bump", 0, 1)], [a], threads, fallback=fallback)
    with pytest.raises(type(error)) as raised:
        made.run(steps=5)
    assert raised.value is error
    np.testing.assert_array_equal(a, 1)
    fails[0] = False
    made.run()
    np.testing.assert_array_equal(a, 3)


def test_a_program_called_from_within_itself_refuses():
    holder = []
    made = program([(None, Flag.FALLBACK)], [], 2, fallback=lambda row: holder[0].entered().__enter__())
    holder.append(made)
    with pytest.raises(StepgradError, match="called from within itself"):
        made.run()


def test_rows_for_python_need_somebody_to_do_them():
    with pytest.raises(ValueError, match="FALLBACK"):
        program([(None, Flag.FALLBACK)], [])


# --- the pool


def test_no_wake_up_is_lost():
    """Workers that fall asleep after few pauses or many are found in every state."""
    made, a = shifting(2, rounds=1)
    made.run()
    memory = workers()._memory
    spins = int(memory[Pool.SPINS])
    try:
        for i in range(20_000):
            memory[Pool.SPINS] = i % 7 * 10
            made.run()
    finally:
        memory[Pool.SPINS] = spins
    np.testing.assert_array_equal(a, 2 * 20_001)


def test_idle_workers_sleep():
    made, _ = shifting(3)
    made.run()
    patience = time.monotonic() + 30
    while workers().asleep < workers().started and time.monotonic() < patience:
        time.sleep(0.001)
    assert workers().asleep == workers().started >= 2
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_a_run_that_finds_the_workers_taken_goes_on_alone():
    inner, a = shifting(2)
    outer = program([(None, Flag.FALLBACK)], [], 2, fallback=lambda row: inner.run())
    outer.run()
    np.testing.assert_array_equal(a, 100)


def _in_threads(*calls):
    failures = []

    def guarded(call):
        try:
            call()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not failures, failures


def test_programs_run_side_by_side():
    made = [shifting(2) for _ in range(3)]
    _in_threads(*(lambda one=one: [one.run() for _ in range(200)] for one, _ in made))
    for _, a in made:
        np.testing.assert_array_equal(a, 20_000)


def test_one_program_is_run_by_one_thread_at_a_time():
    made, a = shifting(2)
    _in_threads(*[lambda: [made.run() for _ in range(100)]] * 4)
    np.testing.assert_array_equal(a, 40_000)


def test_programs_with_one_owner_exclude_each_other():
    owner = np.zeros(1, np.int64)
    first, second = program([], [], owner=owner), program([], [], owner=owner)
    order = []

    def other():
        with second.entered():
            order.append("second")

    with first.entered():
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.02)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_runs_are_counted():
    changes = np.zeros(1, np.int64)
    for threads in (1, 2):
        program([], [], threads, changes=changes).run()
    assert changes[0] == 2


def test_more_threads_than_processors_and_than_are_allowed():
    made, a = shifting(10**6)
    assert made.threads == 256
    made.run(threads=5)
    np.testing.assert_array_equal(a, 100)


# --- other processes


def _script(text):
    """Runs a script in a process of its own; its output. It must end by itself, without an error."""
    here = Path(__file__).parent
    head = "import os, sys, threading, time, atexit\nfrom runtime_kernels import *\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + text],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exit_with_waiting_and_with_sleeping_workers():
    assert _script("p, a = shifting(3); p.run(); print(a[0])") == "100\n"
    assert _script("p, a = shifting(3); p.run(); time.sleep(0.05); print(a[0])") == "100\n"


def test_exit_while_another_thread_runs_a_program():
    text = """
p, a = shifting(2)
threading.Thread(target=lambda: p.run(steps=10**12), daemon=True).start()
while not a[0]:
    time.sleep(0.001)
print("leaving")
"""
    assert _script(text) == "leaving\n"


def test_programs_run_at_exit_after_the_workers_are_gone():
    text = """
p, a = shifting(2)
atexit.register(lambda: (p.run(), print(a[0])))
p.run()
"""
    assert _script("from stepgrad.execute.cpu.pool import workers\n" + text) == "200\n"
    assert _script(text) == "200\n"


_FORK = """
def child(check):
    pid = os.fork()
    if not pid:
        try:
            check()
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def fresh():
    q, b = shifting(2)
    for _ in range(20):
        q.run()
    assert (b == 2000).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_have_workers_of_their_own():
    text = """
p, a = shifting(2)
p.run()
def check():
    p.run()
    assert (a == 200).all()
    fresh()
child(check)
p.run()
print(a[0])
"""
    assert _script(_FORK + text) == "200\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork_while_another_thread_runs_a_program():
    text = """
p, a = shifting(2)
thread = threading.Thread(target=lambda: [p.run(steps=10) for _ in range(100)])
thread.start()
while not a[0]:
    time.sleep(0.0001)
for _ in range(5):
    child(fresh)
thread.join()
q, b = shifting(2)
long = threading.Thread(target=lambda: q.run(steps=6000))
long.start()
while not b[0]:
    time.sleep(0.0001)
def refused():
    assert q.owner[0] == -1, "the run was over before the fork"
    try:
        q.run()
    except Exception as error:
        assert "half-written" in str(error)
    else:
        raise AssertionError("it ran")
    fresh()
child(refused)
long.join()
print(a[0], b[0])
"""
    assert _script(_FORK + text) == "100000 600000\n"


# --- measuring


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_has_the_times_of_each_row(threads):
    made, a = shifting(threads, rounds=3)
    made.run()
    times = made.profile()
    assert times.shape == (threads, 6, 2)
    if platform.cpus() >= threads and not np.isnan(times).any():
        assert (times[..., 1] >= times[..., 0]).all()
        assert (times[:, 1:, 0] >= times[:, :-1, 1]).all()
        assert 0 <= times.min() <= times.max() < 60
    np.testing.assert_array_equal(a, 12)


def test_memory_is_aligned():
    for alignment in (64, 4096):
        memory = platform.aligned(100, alignment)
        assert memory.shape == (100,)
        assert memory.ctypes.data % alignment == 0


@pytest.mark.parametrize(
    ("triple", "pause", "clock"),
    [
        ("aarch64-unknown-linux-gnu", "isb", "CNTVCT_EL0"),
        ("arm64-apple-darwin", "isb", "CNTVCT_EL0"),
        ("x86_64-pc-windows-msvc", "pause", "rdtsc"),
        ("riscv64-unknown-linux-gnu", "fence", ""),
    ],
)
def test_the_driver_can_be_emitted_for_other_machines(triple, pause, clock):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        machine = llvm.Target.from_triple(triple).create_target_machine()
    except RuntimeError:
        pytest.skip("this LLVM can't")
    module = ir.Module()
    module.triple = triple
    driver.emit(module, triple)
    assembly = machine.emit_assembly(llvm.parse_assembly(str(module)))
    assert f"\t{pause}" in assembly
    assert clock in assembly


# --- the fast entry

needs_entry = pytest.mark.skipif(builtin.api() is None, reason="there is no fast entry here")


def _doubling(threads=1, small=True, **settings):
    made = program([("double", Flag.BARRIER, 1, 2)], [zeros(), zeros()], threads, small=small, **settings)
    return made, Port(1, (LENGTH,), INT64), Port(2, (LENGTH,), INT64)


@needs_entry
@pytest.mark.parametrize(("threads", "small"), [(1, True), (1, False), (2, False), (3, True)])
def test_an_entry_returns_new_arrays(threads, small):
    made, x, y = _doubling(threads, small)
    workers().grow(threads)
    call = fast_entry(made, [x], [y])
    first, second = call(np.arange(LENGTH)), call(np.ones(LENGTH, np.int64))
    np.testing.assert_array_equal(first, 2 * np.arange(LENGTH))
    np.testing.assert_array_equal(second, 2)
    assert type(first) is np.ndarray
    assert first.flags.owndata
    assert first.flags.writeable


@needs_entry
def test_what_does_not_fit_goes_the_slow_way():
    made, x, y = _doubling()
    call = fast_entry(made, [x], [y], slow=lambda *args, **kwargs: ("slow", args, kwargs))
    good = np.arange(LENGTH)

    class Sub(np.ndarray):
        pass

    odd = np.zeros(LENGTH * 8 + 1, np.uint8)[1:].view(np.int64)
    misfits = [
        good.astype(np.int32),
        good.astype(np.float64),
        good.astype(">i8"),
        good[:-1],
        good.reshape(LENGTH, 1),
        good.reshape(2, LENGTH // 2),
        np.zeros(2 * LENGTH, np.int64)[::2],
        good.view(Sub),
        odd,
        good.tolist(),
        None,
        1.0,
        Tensor(good, None),
    ]
    for misfit in misfits:
        how, args, kwargs = call(misfit)
        assert (how, kwargs) == ("slow", {})
        assert args[0] is misfit
    assert call() == ("slow", (), {})
    assert call(good, good)[0] == "slow"
    assert call(x=good)[0] == "slow"
    assert call(good, x=good)[2]["x"] is good
    np.testing.assert_array_equal(call(good), 2 * good)
    assert fast_entry(made, [x], [y])(None) is NotImplemented


@needs_entry
def test_tensors_are_taken_where_that_is_asked_for():
    made, x, y = _doubling()
    call = fast_entry(made, [x], [y], tensors=True)
    np.testing.assert_array_equal(call(Tensor(np.arange(LENGTH), None)), 2 * np.arange(LENGTH))
    for misfit in (Tensor(None, None), Tensor(np.zeros(3), None), Tensor.__new__(Tensor)):
        assert call(misfit) is NotImplemented


@needs_entry
def test_numbers_go_in_and_come_out():
    made = program([], [], small=True)
    for dtype, expected in ((np.float32, float(np.float32(0.1))), (np.float64, 0.1)):
        port = Port(1, (), np.dtype(dtype), number=True)
        call = fast_entry(made, [port], [port])
        assert call(0.1) == expected
        assert type(call(0.1)) is float
        for misfit in (1, True, np.float64(1), np.array(1.0)):
            assert call(misfit) is NotImplemented


@needs_entry
def test_several_outputs_and_none():
    made, x, y = _doubling()
    loss = Port(1, (), np.dtype(np.float64), number=True)
    values = np.full(LENGTH, 2.5).view(np.int64)
    assert fast_entry(made, [x], [])(values) is None
    number, array = fast_entry(made, [x], [loss, y])(values)
    assert number == 2.5
    np.testing.assert_array_equal(array, 2 * values)
    summed = fast_entry(made, [x], [loss, y], finish=lambda one, other: (one, other.shape))
    assert summed(values) == (2.5, (LENGTH,))
    failing = fast_entry(made, [x], [y], finish=lambda array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing(values)
    assert made.owner[0] == 0


@needs_entry
@pytest.mark.parametrize("small", [True, False])
def test_an_exception_comes_out_of_an_entry(small):
    fails = [True]
    made = program([(None, Flag.FALLBACK)], [zeros()], small=small, fallback=lambda row: 1 / 0 if fails[0] else None)
    call = fast_entry(made, [], [Port(1, (3,), INT64)])
    with pytest.raises(ZeroDivisionError):
        call()
    fails[0] = False
    assert call().shape == (3,)


@needs_entry
def test_a_busy_program_goes_the_slow_way():
    made, x, y = _doubling()
    call = fast_entry(made, [x], [y])
    with made.entered():
        assert call(np.arange(LENGTH)) is NotImplemented
    assert call(np.arange(LENGTH)) is not NotImplemented


@needs_entry
def test_too_few_workers_go_the_slow_way():
    made, x, y = _doubling(250, small=False)
    assert fast_entry(made, [x], [y])(np.arange(LENGTH)) is NotImplemented
    assert made.owner[0] == 0


@needs_entry
def test_the_context_variable_decides():
    variable = contextvars.ContextVar("variable", default=None)
    made, x, y = _doubling()
    call = fast_entry(made, [x], [y], context=(variable, None))
    assert call(np.arange(LENGTH)) is not NotImplemented
    token = variable.set("recording")
    assert call(np.arange(LENGTH)) is NotImplemented
    variable.reset(token)
    assert call(np.arange(LENGTH)) is not NotImplemented


@needs_entry
def test_an_entry_keeps_no_references_too_many_or_too_few():
    made, x, _ = _doubling()
    dtype = np.dtype([("a", np.int64)])  # unlike those of int64, its references are counted
    loss = Port(1, (), np.dtype(np.float64), number=True)
    call = fast_entry(made, [x], [Port(2, (LENGTH,), dtype), loss], tensors=True)
    value = np.arange(LENGTH)
    tensor = Tensor(value, None)
    context = [value, tensor, dtype, call]
    before = [sys.getrefcount(each) for each in context]
    for _ in range(1000):
        call(value)
        call(tensor)
        call(None)
    assert [sys.getrefcount(each) for each in context] == before


@needs_entry
def test_an_entry_keeps_its_program_alive_and_lets_go_of_it():
    made, x, y = _doubling()
    cycle = []
    cycle.append(fast_entry(made, [x], [y], slow=cycle.append))
    gone = weakref.ref(made)
    del made
    gc.collect()
    np.testing.assert_array_equal(cycle[0](np.arange(LENGTH)), 2 * np.arange(LENGTH))
    assert gone() is not None
    del cycle
    gc.collect()
    assert gone() is None


@needs_entry
def test_entries_run_in_many_threads():
    made, x, y = _doubling(2, small=False)
    workers().grow(2)
    call = fast_entry(made, [x], [y])
    done = []

    def calls(k):
        value = np.arange(LENGTH) * k
        for _ in range(300):
            while (result := call(value)) is NotImplemented:
                time.sleep(0)
            np.testing.assert_array_equal(result, 2 * value)
        done.append(k)

    _in_threads(*(lambda k=k: calls(k) for k in range(3)))
    assert sorted(done) == [0, 1, 2]


def test_without_the_known_layouts_there_is_no_entry(monkeypatch):
    monkeypatch.setattr(builtin, "_is_known_array", lambda: False)
    monkeypatch.setattr(builtin, "api", builtin.api.__wrapped__)
    made, x, y = _doubling()
    assert fast_entry(made, [x], [y]) is None


def test_without_the_interpreters_locks_runs_are_done_alone(monkeypatch):
    alone = type(workers())()
    monkeypatch.setattr(alone, "_locks", None)
    assert alone.grow(4) == 1
