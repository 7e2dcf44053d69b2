"""The native driver: threads walk a program's table together, and meet at barriers.

A program is data in memory (see `words`), so every program is run by the same few functions, compiled once.
"""

from __future__ import annotations

from llvmlite import ir

from stepgrad.execute.cpu import platform
from stepgrad.execute.cpu.building import (
    I32,
    I64,
    NULL,
    PTR,
    VOID,
    acquire,
    call,
    claim,
    counting,
    function,
    load,
    number,
    release,
    store,
    word,
)
from stepgrad.execute.cpu.words import OWNER_SHIFT, Code, Entered, Flag, Mailbox, Pool, Program, Row, State

BARRIER_SPINS = 2000
"""Pauses at a barrier before the waiting thread lets others run: about 20 to 100 microseconds."""


NAMES = "run", "worker", "stop", "enter", "leave", "pause", "ticks"
"""The driver's functions: `run(pool, program, threads, steps) -> Code`, `worker(mailbox)`, `stop(pool)`,
`enter(program, thread) -> Entered`, `leave(program)`, `pause(times)`, `ticks() -> now`."""


def emit(module: ir.Module, triple: str) -> None:
    """Adds the driver's functions to a module. No address is in their code, so it may be kept on disk."""
    run_thread = _flushing(module, triple, _run_thread(module, triple, _barrier(module, triple)))
    _worker(module, triple, run_thread)
    _run(module, run_thread)
    _stop(module)
    _small_functions(module, triple)


def _barrier(module: ir.Module, triple: str) -> ir.Function:
    """barrier(program, target): arrives, and waits until ARRIVED reaches the target."""
    barrier, builder = function(module, "barrier", VOID, PTR, I64)
    barrier.linkage = "internal"
    barrier.attributes.add("noinline")  # the waiting is cold code; inlined it would crowd the loop over rows
    program, target = barrier.args
    arrived = word(builder, program, Program.ARRIVED)
    builder.atomic_rmw("add", arrived, number(1), "acq_rel")
    head, wait, pause, give_way, done = (
        builder.append_basic_block(name) for name in "head wait pause yield done".split()
    )
    entry = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    spins = builder.phi(I64)
    spins.add_incoming(number(0), entry)
    builder.cbranch(builder.icmp_signed(">=", acquire(builder, arrived), target), done, wait)
    builder.position_at_end(wait)
    more = builder.add(spins, number(1))
    builder.cbranch(builder.icmp_signed("<", spins, number(BARRIER_SPINS)), pause, give_way)
    builder.position_at_end(pause)
    platform.emit_pause(builder, triple)
    builder.branch(head)
    builder.position_at_end(give_way)
    give = load(builder, program, Program.YIELD)
    with builder.if_then(builder.icmp_signed("!=", give, number(0))):
        call(builder, give, I32)
    builder.branch(head)
    for block in (pause, builder.block):
        spins.add_incoming(more, block)
    builder.position_at_end(done)
    builder.ret_void()
    return barrier


def _run_thread(module: ir.Module, triple: str, barrier: ir.Function) -> ir.Function:
    """run_thread(program, thread, threads, steps, arrived) -> Code: one thread's share of a run.

    `arrived` is what ARRIVED was when the run began. A worker must not touch the program after it has
    arrived for the last time: the caller may then free it.
    """
    run_thread, builder = function(module, "run_thread", I64, PTR, I64, I64, I64, I64)
    run_thread.linkage = "internal"
    program, thread, threads, steps, arrived = run_thread.args
    target = builder.alloca(I64)
    builder.store(arrived, target)
    table, operands, slots, moving = (
        load(builder, program, index, PTR) for index in (Program.TABLE, Program.OPERANDS, Program.SLOTS, Program.MOVING)
    )
    rows, per_thread, moving_count, callback, times = (
        load(builder, program, index)
        for index in (Program.ROWS, Program.SLOTS_PER_THREAD, Program.MOVING_COUNT, Program.CALLBACK, Program.TIMES)
    )
    own = word(builder, slots, builder.mul(thread, per_thread))
    alone = builder.icmp_signed("==", threads, number(1))
    first = builder.icmp_signed("==", thread, number(0))
    profiled = builder.icmp_signed("!=", times, number(0))
    base = builder.add(times, builder.mul(builder.mul(thread, rows), number(16)))
    own_times = builder.inttoptr(base, PTR)

    def meet() -> None:
        with builder.if_then(builder.not_(alone)):
            builder.store(builder.add(builder.load(target), threads), target)
            builder.call(barrier, [program, builder.load(target)])

    def note(row: ir.Value, end: int) -> None:
        with builder.if_then(profiled, likely=False):
            index = builder.add(builder.shl(row, number(1)), number(end))
            store(builder, platform.emit_ticks(builder, triple), own_times, index)

    def advance() -> None:
        with counting(builder, moving_count) as (pair, _):
            line = word(builder, moving, builder.shl(pair, number(1)))
            slot = load(builder, line, 0)
            store(builder, builder.add(load(builder, own, slot), load(builder, line, 1)), own, slot)

    finish = builder.append_basic_block("finish")
    with builder.if_then(builder.not_(first)), counting(builder, moving_count) as (pair, _):
        slot = load(builder, moving, builder.shl(pair, number(1)))  # thread 0 has the addresses of this run
        store(builder, load(builder, slots, slot), own, slot)
    with counting(builder, steps) as (step, _):
        with counting(builder, rows) as (row, _):
            line = word(builder, table, builder.shl(row, number(2)))
            address, flags = load(builder, line, Row.FUNCTION), load(builder, line, Row.FLAGS)
            ids = word(builder, operands, load(builder, line, Row.FIRST))

            def flag(which: Flag, flags: ir.Value = flags) -> ir.Value:
                return builder.icmp_signed("!=", builder.and_(flags, number(which)), number(0))

            with builder.if_then(flag(Flag.BARRIER | Flag.FALLBACK)):
                meet()
            note(row, 0)
            with builder.if_else(flag(Flag.FALLBACK), likely=False) as (fallback, native):
                with fallback:
                    with builder.if_then(first):
                        failed = call(builder, callback, I64, row)
                        with builder.if_then(builder.icmp_signed("!=", failed, number(0))):
                            store(builder, number(1), program, Program.ABORT)
                    note(row, 1)
                    meet()
                    aborted = builder.icmp_signed("!=", load(builder, program, Program.ABORT), number(0))
                    with builder.if_then(aborted, likely=False):
                        builder.branch(finish)
                with native:
                    with builder.if_else(flag(Flag.SINGLE), likely=False) as (single, shared):
                        with single:
                            owner = builder.lshr(flags, number(OWNER_SHIFT))
                            mine = builder.icmp_signed("==", builder.srem(owner, threads), thread)
                            with builder.if_then(mine):
                                call(builder, address, VOID, own, ids, number(0), number(1))
                        with shared:
                            call(builder, address, VOID, own, ids, thread, threads)
                    note(row, 1)
                    with builder.if_then(flag(Flag.CHECK), likely=False):
                        outside = builder.icmp_signed("!=", load(builder, program, Program.ABORT), number(0))
                        with builder.if_then(outside, likely=False):
                            builder.branch(finish)
        with builder.if_then(builder.icmp_signed("<", builder.add(step, number(1)), steps)):
            meet()
            advance()
    builder.branch(finish)

    builder.position_at_end(finish)
    with builder.if_then(first):
        meet()
        advance()  # not sooner: a worker that began late still copies these slots
        builder.ret(load(builder, program, Program.ABORT))
    builder.atomic_rmw("add", word(builder, program, Program.ARRIVED), number(1), "acq_rel")
    builder.ret(number(0))
    return run_thread


def _flushing(module: ir.Module, triple: str, run_thread: ir.Function) -> ir.Function:
    """run_thread, in a mode in which denormal numbers count as 0 if the program asks for it."""
    flushing, builder = function(module, "run_flushing", I64, *run_thread.ftype.args)
    flushing.linkage = "internal"
    asked = builder.icmp_signed("!=", load(builder, flushing.args[0], Program.FLUSH), number(0))
    with builder.if_then(asked):
        saved = platform.emit_flush(builder, triple)
        code = builder.call(run_thread, flushing.args)
        platform.emit_restore(builder, triple, saved)
        builder.ret(code)
    builder.ret(builder.call(run_thread, flushing.args))
    return flushing


def _worker(module: ir.Module, triple: str, run_thread: ir.Function) -> None:
    """worker(mailbox): waits for jobs and does its share of them, until it is told to stop.

    No wake-up is lost or left over: the worker sleeps only after it changed IDLE to ASLEEP itself, and
    whoever changes ASLEEP to something else releases the lock, exactly once.
    """
    worker, builder = function(module, "worker", VOID, PTR)
    (mailbox,) = worker.args
    state = word(builder, mailbox, Mailbox.STATE)
    pool = load(builder, mailbox, Mailbox.POOL, PTR)
    wait, awake = builder.append_basic_block("wait"), builder.append_basic_block("awake")
    builder.branch(wait)

    builder.position_at_end(wait)
    with counting(builder, load(builder, pool, Pool.SPINS)):
        with builder.if_then(builder.icmp_signed("!=", acquire(builder, state), number(State.IDLE))):
            builder.branch(awake)
        platform.emit_pause(builder, triple)
    with builder.if_then(claim(builder, state, State.IDLE, number(State.ASLEEP))):
        lock = load(builder, mailbox, Mailbox.LOCK, PTR)
        call(builder, load(builder, pool, Pool.ACQUIRE), I32, lock, ir.Constant(I32, 1))
    builder.branch(awake)

    builder.position_at_end(awake)
    with builder.if_then(builder.icmp_signed("==", acquire(builder, state), number(State.STOP))):
        release(builder, number(State.GONE), state)
        builder.ret_void()
    job = [load(builder, mailbox, index) for index in (Mailbox.THREADS, Mailbox.STEPS, Mailbox.ARRIVED)]
    program, own_number = load(builder, mailbox, Mailbox.PROGRAM, PTR), load(builder, mailbox, Mailbox.NUMBER)
    release(builder, number(State.IDLE), state)  # before the last arrival, after which the next job may come
    builder.call(run_thread, [program, own_number, *job])
    builder.branch(wait)


def _run(module: ir.Module, run_thread: ir.Function) -> None:
    """run(pool, program, threads, steps) -> Code: a run, with the pool's workers if they are free, or else alone."""
    run, builder = function(module, "run", I64, PTR, PTR, I64, I64)
    pool, program, threads, steps = run.args
    taken = word(builder, pool, Pool.TAKEN)
    store(builder, number(0), program, Program.ABORT)
    arrived = load(builder, program, Program.ARRIVED)
    alone, together = builder.append_basic_block("alone"), builder.append_basic_block("together")
    with builder.if_then(builder.icmp_signed("<=", threads, number(1)), likely=True):
        builder.branch(alone)
    helpers = builder.sub(threads, number(1))
    with builder.if_then(builder.icmp_signed("<", acquire(builder, word(builder, pool, Pool.STARTED)), helpers)):
        builder.ret(number(Code.WORKERS))
    builder.cbranch(claim(builder, taken, 0, number(1)), together, alone)

    builder.position_at_end(alone)
    code = builder.call(run_thread, [program, number(0), number(1), steps, arrived])
    _count_change(builder, program)
    builder.ret(code)

    builder.position_at_end(together)
    with counting(builder, helpers) as (index, _):
        mailbox = word(builder, pool, builder.mul(builder.add(index, number(1)), number(Mailbox.WORDS)))
        builder.store(program, word(builder, mailbox, Mailbox.PROGRAM))
        for place, value in ((Mailbox.THREADS, threads), (Mailbox.STEPS, steps), (Mailbox.ARRIVED, arrived)):
            store(builder, value, mailbox, place)
        _post(builder, pool, mailbox, State.WORK)
    code = builder.call(run_thread, [program, number(0), threads, steps, arrived])
    release(builder, number(0), taken)
    _count_change(builder, program)
    builder.ret(code)


def _count_change(builder: ir.IRBuilder, program: ir.Value) -> None:
    changes = load(builder, program, Program.CHANGES, PTR)
    with builder.if_then(builder.icmp_unsigned("!=", changes, NULL)):
        builder.atomic_rmw("add", changes, number(1), "acq_rel")


def _post(builder: ir.IRBuilder, pool: ir.Value, mailbox: ir.Value, state: State) -> None:
    """Tells a worker something, and wakes it if it sleeps."""
    before = builder.atomic_rmw("xchg", word(builder, mailbox, Mailbox.STATE), number(state), "acq_rel")
    with builder.if_then(builder.icmp_signed("==", before, number(State.ASLEEP))):
        call(builder, load(builder, pool, Pool.RELEASE), VOID, load(builder, mailbox, Mailbox.LOCK, PTR))


def _stop(module: ir.Module) -> None:
    """stop(pool): ends the workers, unless they are at work; either way no later run will find them free."""
    stop, builder = function(module, "stop", VOID, PTR)
    (pool,) = stop.args
    free, started = claim(builder, word(builder, pool, Pool.TAKEN), 0, number(1)), load(builder, pool, Pool.STARTED)
    with builder.if_then(free), counting(builder, started) as (index, _):
        mailbox = word(builder, pool, builder.mul(builder.add(index, number(1)), number(Mailbox.WORDS)))
        _post(builder, pool, mailbox, State.STOP)
    builder.ret_void()


def _small_functions(module: ir.Module, triple: str) -> None:
    """enter, leave, pause and ticks."""
    enter, builder = function(module, "enter", I64, PTR, I64)
    program, thread = enter.args
    builder.ret(emit_enter(builder, program, thread))

    leave, builder = function(module, "leave", VOID, PTR)
    emit_leave(builder, leave.args[0])
    builder.ret_void()

    pause, builder = function(module, "pause", VOID, I64)
    with counting(builder, pause.args[0]):
        platform.emit_pause(builder, triple)
    builder.ret_void()

    _, builder = function(module, "ticks", I64)
    builder.ret(platform.emit_ticks(builder, triple))


def emit_enter(builder: ir.IRBuilder, program: ir.Value, thread: ir.Value) -> ir.Value:
    """Emits the attempt to make a thread, by its identity, the owner of a program: `Entered`."""
    before = builder.cmpxchg(load(builder, program, Program.OWNER, PTR), number(0), thread, "acq_rel", "acquire")
    owner, entered = builder.extract_value(before, 0), builder.extract_value(before, 1)
    found = builder.select(builder.icmp_signed("==", owner, thread), number(Entered.ALREADY), number(Entered.BUSY))
    return builder.select(entered, number(Entered.NOW), found)


def emit_leave(builder: ir.IRBuilder, program: ir.Value) -> None:
    """Emits the end of a thread's ownership."""
    release(builder, number(0), load(builder, program, Program.OWNER, PTR))
