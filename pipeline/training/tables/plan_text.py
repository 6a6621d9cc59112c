"""A sharding plan in words: where each table went, what it takes there, and why; or why there is no plan."""

from collections.abc import Iterator, Sequence

from torchrec.distributed.planner.types import Shard, ShardingOption, Storage

from pipeline.errors import StrataError
from pipeline.training.tables.config import TablesConfig
from pipeline.training.tables.setting import HEADROOM, Setting
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


def explain(
    chosen: Sequence[ShardingOption], options: Sequence[ShardingOption], config: TablesConfig, setting: Setting
) -> str:
    """`chosen` has one option for each table, with ranks; `options` are all that the planner could choose from."""
    rows = [HEADER, *(_row(option, config, setting) for option in chosen)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"Sharding plan for {_ranks(setting)}, with batches of {setting.rows:,} rows on each.",
        "Sizes are those on the rank that has most of a table: update is Adagrad's sums, and a replicated table's",
        "gradient; batch is ids and embeddings, and the cache of fused_uvm_caching; copy is what checkpoints are",
        "written from, in the machine's memory, of a replicated table on rank 0 alone. Times are TorchRec's estimates.",
        "",
    ]
    for row in rows:
        cells = zip(HEADER, row, widths, strict=True)
        lines.append("  ".join(cell.rjust(w) if name in NUMBERS else cell.ljust(w) for name, cell, w in cells).rstrip())
    lines += ["", "Why:"]
    lines += [
        f"  {o.name}: {_reason(o, [other for other in options if other.name == o.name], config, setting)}"
        for o in chosen
    ]
    lines += ["", f"Memory, {HEADROOM:.0%} of which is kept free:"]
    lines += [f"  rank {rank}: {line}" for rank, line in enumerate(_totals(chosen, setting))]
    return "\n".join(lines)


def no_room(options: Sequence[ShardingOption], config: TablesConfig, setting: Setting) -> StrataError:
    """The error for tables that do not fit, whichever options are taken."""
    least: dict[str, int] = {}
    for option in options:
        total = option.total_storage.hbm + option.total_storage.ddr
        least[option.name] = min(total, least.get(option.name, total))
    largest = max(least, key=lambda name: least[name])
    need = sum(least.values()) + setting.ranks * setting.dense + setting.dense_copies
    advice = ["use more ranks or smaller tables"]
    if config.weights == "fp32":
        advice.append(f"--tables.weights {'bf16' if setting.hbm else 'fp16'}")
    if "row_wise" not in config.kinds(largest, ranks=2):
        advice.append(f"--tables.overrides {largest} row_wise")
    if setting.hbm and config.kernels_of(largest) == ["fused"]:
        advice.append(f"--tables.kernel-overrides {largest} fused_uvm_caching")
    what = (
        f"do not fit: at least {size(need)} needed for {_ranks(setting)} together, with copies for checkpoints "
        f"(largest table `{largest}` {size(least[largest])}, dense part {size(setting.dense)} on each), where each has "
        f"{_storage(Storage(setting.hbm, setting.ddr))}, of which {HEADROOM:.0%} is kept free"
    )
    return StrataError(what, where="--tables", fix=", or ".join(advice))


def size(count: float) -> str:
    """A number of bytes, as `1.3 MB`."""
    power = min(len(UNITS) - 1, max(0, len(str(int(count))) - 1) // 3)
    return f"{count / 1000**power:.{min(power, 1)}f} {UNITS[power]}"


def _ranks(setting: Setting) -> str:
    return f"{setting.ranks} {'rank' if setting.ranks == 1 else 'ranks'} on {setting.device}"


def _storage(storage: Storage) -> str:
    """Both kinds of memory, where there are two."""
    if not storage.hbm:
        return size(storage.ddr)
    return f"{size(storage.hbm)} on the device" + (f" and {size(storage.ddr)} in the machine" if storage.ddr else "")


def _row(option: ShardingOption, config: TablesConfig, setting: Setting) -> tuple[str, ...]:
    rows, dim = option.tensor.shape
    most = max(_by_rank(option).values(), key=lambda shards: sum(weight_bytes(option, shard) for shard in shards))
    weights, update = (sum(of(option, shard) for shard in most) for of in (weight_bytes, state_bytes))
    copies = sum(copy_bytes(option, shard, setting.device) for shard in most)
    total = sum((shard.storage for shard in most), Storage(0, 0))
    ranks = sorted(_by_rank(option))
    return (
        option.name,
        f"{rows:,}",
        str(dim),
        option.sharding_type,
        option.compute_kernel,
        f"{ranks[0]}-{ranks[-1]}" if len(ranks) == setting.ranks > 1 else ",".join(map(str, ranks)),
        config.precision(option.name),
        size(weights),
        size(update),
        size(total.hbm + total.ddr - weights - update - copies),
        size(copies),
        f"{_cost(option):.3f} ms",
    )


def _reason(option: ShardingOption, options: Sequence[ShardingOption], config: TablesConfig, setting: Setting) -> str:
    others = [other for other in options if _name(other) != _name(option)]
    fixed = [
        flag
        for flag, names in (("overrides", config.overrides), ("kernel-overrides", config.kernel_overrides))
        if option.name in names
    ]
    said = "fixed by " + " and ".join(f"--tables.{flag}" for flag in fixed) if fixed else ""
    if not others:
        return said or "nothing else is allowed"
    fitting = [other for other in others if _fits(other, setting)]
    if not fitting:
        reason = "only this fits"
    elif all(_cost(option) <= _cost(other) for other in fitting):
        reason = "the fastest" if len(fitting) == len(others) else "the fastest that fits"
    else:
        reason = "not the fastest by itself, but with it the busiest rank has least to do, or all tables fit"
    listed = sorted(others, key=_cost)
    alternatives = [
        f"{_name(other)} {_cost(other):.3f} ms, {_storage(_largest(other))}"
        + ("" if other in fitting else ", does not fit")
        for other in listed
    ]
    return "; ".join([*([said] if said else []), f"{reason}. Else: {'; '.join(alternatives)}"])


def _fits(option: ShardingOption, setting: Setting) -> bool:
    """Whether there is room for an option, were it alone; some have a shard on every rank, so on the first one too."""
    everywhere = option.sharding_type in ("row_wise", "data_parallel")
    return bool(_largest(option).fits_in(setting.room(0 if everywhere or setting.ranks == 1 else 1)))


def _totals(chosen: Sequence[ShardingOption], setting: Setting) -> Iterator[str]:
    """A line for each rank."""
    for rank in range(setting.ranks):
        mine = [(option, shard) for option in chosen for shard in _by_rank(option).get(rank, [])]
        copies = sum(copy_bytes(option, shard, setting.device) for option, shard in mine)
        tables = sum((shard.storage for _, shard in mine), Storage(0, 0)) - Storage(hbm=0, ddr=copies)
        copies += setting.dense_copies if rank == 0 else 0
        if setting.hbm:
            yield (
                f"device {size(tables.hbm)} tables + {size(setting.dense)} dense part, of {size(setting.hbm)}; "
                f"machine {size(tables.ddr)} tables + {size(copies)} copies, of {size(setting.ddr)}"
            )
        else:
            yield (
                f"{size(tables.ddr)} tables + {size(setting.dense)} dense part + {size(copies)} copies, "
                f"of {size(setting.ddr)}"
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
    """Milliseconds of a step, of the shard that takes longest."""
    return float(max(shard.perf.total for shard in option.shards))


def _largest(option: ShardingOption) -> Storage:
    """Of the shard that takes most."""
    return max((shard.storage for shard in option.shards), key=lambda storage: storage.hbm + storage.ddr)
