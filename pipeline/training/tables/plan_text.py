"""A sharding plan in words: where each table goes, what it takes there, and why; or why there is no plan."""

from collections.abc import Iterator, Sequence

from torchrec.distributed.planner.types import Shard, ShardingOption, Storage

from pipeline.errors import StrataError
from pipeline.training.tables.config import TablesConfig
from pipeline.training.tables.plan_inputs import HEADROOM, PlanInputs
from pipeline.training.tables.shard_memory import copy_bytes, state_bytes, weight_bytes

HEADER = (
    "table",
    "rows",
    "dim",
    "sharding",
    "kernel",
    "ranks",
    "precision",
    "weights",
    "update",
    "batch",
    "copy",
    "estimate",
)
NUMBERS = {"rows", "dim", "weights", "update", "batch", "copy", "estimate"}
UNITS = ("B", "kB", "MB", "GB", "TB")


def describe_plan(
    chosen: Sequence[ShardingOption], options: Sequence[ShardingOption], config: TablesConfig, inputs: PlanInputs
) -> str:
    """The text of a plan. `chosen` has one option for each table; `options` are all that the planner could choose."""
    rows = [HEADER, *(_row(option, config, inputs) for option in chosen)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"Sharding plan for {_ranks(inputs)}, with batches of {inputs.rows:,} rows on each.",
        "Sizes are those on the rank that holds most of a table. `update` is Adagrad's sums, and the gradient of a",
        "replicated table. `batch` is ids and embeddings, and the cache of fused_uvm_caching. `copy` is the copy in",
        "the machine's memory from which checkpoints are written; only rank 0 copies a replicated table. `estimate`",
        "is TorchRec's estimate of the time.",
        "",
    ]
    for row in rows:
        cells = zip(HEADER, row, widths, strict=True)
        lines.append("  ".join(cell.rjust(w) if name in NUMBERS else cell.ljust(w) for name, cell, w in cells).rstrip())
    lines += ["", "Why:"]
    lines += [
        f"  {o.name}: {_reason(o, [other for other in options if other.name == o.name], config, inputs)}"
        for o in chosen
    ]
    lines += ["", f"Memory, {HEADROOM:.0%} of which is kept free:"]
    lines += [f"  rank {rank}: {line}" for rank, line in enumerate(_totals(chosen, inputs))]
    return "\n".join(lines)


def no_room(options: Sequence[ShardingOption], config: TablesConfig, inputs: PlanInputs) -> StrataError:
    """The error for tables that do not fit, whatever the planner chooses."""
    least: dict[str, int] = {}
    for option in options:
        total = option.total_storage.hbm + option.total_storage.ddr
        least[option.name] = min(total, least.get(option.name, total))
    largest = max(least, key=lambda name: least[name])
    need = sum(least.values()) + inputs.ranks * inputs.dense + inputs.dense_copies
    advice = ["use more ranks or smaller tables"]
    if config.weights == "fp32":
        advice.append(f"--tables.weights {'bf16' if inputs.hbm else 'fp16'}")
    if "row_wise" not in config.kinds(largest, ranks=2):
        advice.append(f"--tables.overrides {largest} row_wise")
    if inputs.hbm and config.kernels_of(largest) == ["fused"]:
        advice.append(f"--tables.kernel-overrides {largest} fused_uvm_caching")
    what = (
        f"do not fit: at least {size(need)} needed for {_ranks(inputs)} together, with copies for checkpoints "
        f"(largest table `{largest}` {size(least[largest])}, dense part {size(inputs.dense)} on each), where each has "
        f"{_storage(Storage(inputs.hbm, inputs.ddr))}, of which {HEADROOM:.0%} is kept free"
    )
    return StrataError(what, where="--tables", fix=", or ".join(advice))


def size(count: float) -> str:
    """A number of bytes, as `1.3 MB`."""
    power = min(len(UNITS) - 1, max(0, len(str(int(count))) - 1) // 3)
    return f"{count / 1000**power:.{min(power, 1)}f} {UNITS[power]}"


def _ranks(inputs: PlanInputs) -> str:
    return f"{inputs.ranks} {'rank' if inputs.ranks == 1 else 'ranks'} on {inputs.device}"


def _storage(storage: Storage) -> str:
    """Sizes of both kinds of memory, or of one where a rank has one."""
    if not storage.hbm:
        return size(storage.ddr)
    return f"{size(storage.hbm)} on the device" + (f" and {size(storage.ddr)} in the machine" if storage.ddr else "")


def _row(option: ShardingOption, config: TablesConfig, inputs: PlanInputs) -> tuple[str, ...]:
    rows, dim = option.tensor.shape
    most = max(_by_rank(option).values(), key=lambda shards: sum(weight_bytes(option, shard) for shard in shards))
    weights, update = (sum(of(option, shard) for shard in most) for of in (weight_bytes, state_bytes))
    copies = sum(copy_bytes(option, shard, inputs.device) for shard in most)
    total = sum((shard.storage for shard in most), Storage(0, 0))
    ranks = sorted(_by_rank(option))
    return (
        option.name,
        f"{rows:,}",
        str(dim),
        option.sharding_type,
        option.compute_kernel,
        f"{ranks[0]}-{ranks[-1]}" if len(ranks) == inputs.ranks > 1 else ",".join(map(str, ranks)),
        config.precision(option.name),
        size(weights),
        size(update),
        size(total.hbm + total.ddr - weights - update - copies),
        size(copies),
        f"{_cost(option):.3f} ms",
    )


def _reason(option: ShardingOption, options: Sequence[ShardingOption], config: TablesConfig, inputs: PlanInputs) -> str:
    others = [other for other in options if _name(other) != _name(option)]
    fixed = [
        flag
        for flag, names in (("overrides", config.overrides), ("kernel-overrides", config.kernel_overrides))
        if option.name in names
    ]
    by_flags = "fixed by " + " and ".join(f"--tables.{flag}" for flag in fixed) if fixed else ""
    if not others:
        return by_flags or "nothing else is allowed"
    fitting = [other for other in others if _fits(other, inputs)]
    if not fitting:
        reason = "only this fits"
    elif all(_cost(option) <= _cost(other) for other in fitting):
        reason = "the fastest" if len(fitting) == len(others) else "the fastest that fits"
    else:
        reason = "not the fastest alone, but the busiest rank has less to do, or all tables fit"
    listed = sorted(others, key=_cost)
    alternatives = [
        f"{_name(other)} {_cost(other):.3f} ms, {_storage(_largest(other))}"
        + ("" if other in fitting else ", does not fit")
        for other in listed
    ]
    reasons = [by_flags] if by_flags else []
    return "; ".join([*reasons, f"{reason}. Else: {'; '.join(alternatives)}"])


def _fits(option: ShardingOption, inputs: PlanInputs) -> bool:
    """Whether an option would fit if there were no other table.

    The first rank has less room than the others. Row-wise and replicated tables have a shard there.
    """
    on_first_rank = option.sharding_type in ("row_wise", "data_parallel") or inputs.ranks == 1
    return bool(_largest(option).fits_in(inputs.room(0 if on_first_rank else 1)))


def _totals(chosen: Sequence[ShardingOption], inputs: PlanInputs) -> Iterator[str]:
    """A line of memory for each rank."""
    for rank in range(inputs.ranks):
        mine = [(option, shard) for option in chosen for shard in _by_rank(option).get(rank, [])]
        copies = sum(copy_bytes(option, shard, inputs.device) for option, shard in mine)
        tables = sum((shard.storage for _, shard in mine), Storage(0, 0)) - Storage(hbm=0, ddr=copies)
        copies += inputs.dense_copies if rank == 0 else 0
        if inputs.hbm:
            yield (
                f"device {size(tables.hbm)} tables + {size(inputs.dense)} dense part, of {size(inputs.hbm)}; "
                f"machine {size(tables.ddr)} tables + {size(copies)} copies, of {size(inputs.ddr)}"
            )
        else:
            yield (
                f"{size(tables.ddr)} tables + {size(inputs.dense)} dense part + {size(copies)} copies, "
                f"of {size(inputs.ddr)}"
            )


def _by_rank(option: ShardingOption) -> dict[int, list[Shard]]:
    found: dict[int, list[Shard]] = {}
    for shard in option.shards:
        found.setdefault(shard.rank, []).append(shard)
    return found


def _name(option: ShardingOption) -> str:
    kernel = "" if option.compute_kernel in ("fused", "dense") else f" {option.compute_kernel}"
    return f"{option.sharding_type}{kernel}"


def _cost(option: ShardingOption) -> float:
    """Milliseconds of a step, for the shard that takes longest."""
    return float(max(shard.perf.total for shard in option.shards))


def _largest(option: ShardingOption) -> Storage:
    """The memory of the shard that takes most."""
    return max((shard.storage for shard in option.shards), key=lambda storage: storage.hbm + storage.ddr)
