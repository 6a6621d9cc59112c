"""The plan of a build in words: files, partitions, windows and columns, and what a changed spec redoes."""

from collections.abc import Iterator

from pipeline.columns import feature_column, label_column
from pipeline.manifest import MANIFEST, read_manifest
from pipeline.raw.reading import RawFile
from pipeline.samples.division import Division, Options
from pipeline.spec.features import (
    AnyTable,
    BucketTable,
    DenseFeature,
    HashTable,
    HistoryFeature,
    QuantileTable,
    VocabTable,
)
from pipeline.spec.parts import AT_THE_END, BY_DAYS, NO_STAGE, changed_parts, stages_after
from pipeline.spec.spec import Spec
from pipeline.storage import Folder

WIDTH = 26
NO_TASK = {
    BY_DAYS: "is done again for days whose split changes: encoding; and vocabularies, if training days change",
    AT_THE_END: "nothing is done again; labels are checked",
    NO_STAGE: "nothing is done again",
}


def redone(stage: str) -> str:
    """What a changed part redoes: the first stage that depends on it, and later ones as far as their input changes."""
    if stage in NO_TASK:
        return NO_TASK[stage]
    words = list(dict.fromkeys(later.word for later in stages_after(stage)))
    return f"is done again for all days, from {words[0]} on ({', '.join(words)})"


def explain_build(
    spec: Spec, files: dict[str, list[RawFile]], division: Division, options: Options, store: Folder
) -> str:
    """Reads only the sizes of the raw files, and the manifest of the store if there is one."""
    logs = spec.logs
    lines = [f"{spec.name}: about {division.rows:,} impressions, to {store}", "", "Raw files"]
    for name, of_table in files.items():
        lines.append(_line(name, f"files: {len(of_table):,}, {sum(file.info.size for file in of_table) / 1e6:,.1f} MB"))
    lines += ["", "Partitions"]
    lines.append(
        _line("users", f"in {division.partitions} ranges of the hash of `{logs.impression.user}`, each day by day")
    )
    lines.append(
        _line("work", f"{division.workers} at a time on {options.engine}, for {options.memory_gb:g} GB in all")
    )
    lines += ["", "Windows"]
    lines.append(_line("days", f"begin at midnight in {logs.timezone}"))
    for name, event in logs.events.items():
        lines.append(_line(name, f"at most {event.within_s:,} s after the impression, by the event's own time"))
    if spec.counters:
        for by, key in spec.counters.by.items():
            whose = "in its partition" if key == logs.impression.user else "from all partitions, added up by day"
            windows = ", ".join(map(str, spec.counters.days))
            lines.append(
                _line(f"{by} counters", f"{', '.join(spec.counters.measures)} over {windows} completed days, {whose}")
            )
    lines += ["", "Columns", *_columns(spec)]
    lines += ["", "Since the build that is there", *_changes(spec, store)]
    return "\n".join(lines)


def _line(name: str, text: str) -> str:
    return f"  {name:{WIDTH}} {text}"


def _columns(spec: Spec) -> Iterator[str]:
    for name, expression in spec.columns.items():
        yield _line(name, f"= {expression}")
    for name, feature in spec.features.items():
        if isinstance(feature, DenseFeature):
            text = f"number: {feature.source or name}, {' and '.join(feature.normalise) or 'as it is'}"
        elif isinstance(feature, HistoryFeature):
            where = f" where {feature.where}" if feature.where else ""
            text = f"history: {feature.of} of the last {feature.last} {feature.event} events{where}"
        else:
            text = f"{feature.kind}: {feature.source or name}"
        table = "" if isinstance(feature, DenseFeature) else f" -> {_table(feature.table, spec.tables[feature.table])}"
        yield _line(feature_column(name), text + table)
    for name, objective in spec.objectives.items():
        where = f" where {objective.where}" if objective.where else ""
        yield _line(label_column(name), f"{objective.kind}: {objective.label}{where}")
    for rule in spec.downsample:
        yield _line("training rows", f"{rule.keep:g} of those where {rule.where}, with 1 / {rule.keep:g} the weight")
    if spec.filter:
        yield _line("all rows", f"only where {spec.filter}")


def _table(name: str, table: AnyTable) -> str:
    match table:
        case VocabTable():
            return f"table {name}, vocabulary of what training shows {table.min_count} times or more"
        case HashTable():
            return f"table {name}, hashed into {table.rows:,} rows"
        case QuantileTable():
            return f"table {name}, {table.buckets} quantiles of the training split"
        case BucketTable():
            return f"table {name}, {len(table.boundaries) + 1} declared intervals"


def _changes(spec: Spec, store: Folder) -> Iterator[str]:
    if not store.exists(MANIFEST):
        yield _line("all of it", "is to be done: there is none yet, or none that was finished")
        return
    found = changed_parts(read_manifest(store).spec, spec)
    if not found:
        yield _line("the spec", "has not changed: new and changed raw files are read, and what depends on them")
    for stage, keys in found.items():
        yield _line(redone(stage), ", ".join(keys))
