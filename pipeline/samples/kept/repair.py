"""What a build does about a kept result that is damaged: it checks all of them, once, and makes such ones again."""

from pipeline.samples.kept.results import RECEIPT, WORK, DamagedResult, Results
from pipeline.storage import Folder


def forget_damaged(store: Folder, met: DamagedResult) -> list[str]:
    """Deletes the result that a task met, and every other one that is damaged, and returns a line about each."""
    names = [file.name for file in store.files(through_links=False) if file.name.startswith(f"{WORK}/")]
    damaged = {str(met.where): met}
    for name in names:
        if name.endswith(f"/{RECEIPT}"):
            try:
                Results(store / name.removesuffix(f"/{RECEIPT}")).check()
            except DamagedResult as error:
                damaged[str(error.where)] = error
    gone = [name for name in names if f"{store}/{name}".rsplit("/", 1)[0] in damaged]
    store.delete(sorted(gone, key=lambda name: not name.endswith(RECEIPT)))
    return [f"{where}: {error.what}; it is made again" for where, error in damaged.items()]
