"""One build at a time in a store, and kept work that survives the machine going down.

The store's own files are flushed to the disk one by one. Kept results are not: that took a fifth of a build's time.
They survive the death of the process, and `flush_kept_work` flushes all of them before the manifest names anything. If
a build ends without that, and the machine then goes down, the results since its start are made again.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StrataError
from pipeline.samples.kept.results import RECEIPT, WORK
from pipeline.storage import Folder

UNCOMMITTED = f"{WORK}/uncommitted"  # there while a build is at work, with the id of the machine's boot
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CLOCK_ERROR_S = 3600  # by which a clock may have been set back during a build


@contextmanager
def locked(store: Folder) -> Iterator[None]:
    """Keeps a second build out of a store on this machine, and clears away what a build cut short left there."""
    if not store.is_local:  # an object store shows whole objects only, and keeps them
        yield
        return
    lock = Path(store.path) / WORK / "lock"
    if lock.parent.is_symlink():
        raise StrataError("is a symbolic link, which no build follows", where=lock.parent, fix="put a folder there")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise StrataError(f"cannot be created ({error.strerror})", where=store, fix="choose another --out") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        store.sweep()
        _forget_uncommitted(store)
        yield
    except BlockingIOError:
        raise StrataError("another build is at work there", where=store, fix="wait for it, or stop it") from None
    finally:
        os.close(descriptor)


def flush_meanwhile(store: Folder) -> None:
    """Flushes what there is so far while the next stage works, so that `flush_kept_work` need not wait long."""
    if store.is_local:
        threading.Thread(target=os.sync, daemon=True).start()


def flush_kept_work(store: Folder) -> None:
    """Flushes all that the build has made on this machine. A cluster's file system flushes what other nodes close."""
    if store.is_local:
        os.sync()
        (Path(store.path) / UNCOMMITTED).unlink(missing_ok=True)


def _forget_uncommitted(store: Folder) -> None:
    """Deletes the receipts that may be there without their results; then begins a build."""
    mark, boot = Path(store.path) / UNCOMMITTED, BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
    if mark.exists():
        if boot and mark.read_text() == boot:
            return  # killed: the machine stayed up, and so did what it was told to write
        since = mark.stat().st_mtime - CLOCK_ERROR_S
        receipts = [f.name for f in store.files(through_links=False) if f.name.endswith(f"/{RECEIPT}")]
        store.delete([name for name in receipts if (Path(store.path) / name).lstat().st_mtime >= since])
        os.sync()  # before the mark gets a later time, by which these receipts would look old
    store.write(UNCOMMITTED, boot.encode())
