import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.batches.prefetch import Prefetcher


@pytest.fixture
def threads() -> Callable[[], list[threading.Thread]]:
    """The threads of prefetchers that the test has started and that still run."""
    before = set(threading.enumerate())
    return lambda: [t for t in threading.enumerate() if t.name == "prefetch" and t not in before]


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_all_items_in_order_and_the_thread_ends(count: int, depth: int, threads: Callable[[], list[threading.Thread]]):
    prefetcher = Prefetcher(iter(range(count)), depth)
    assert list(prefetcher) == list(range(count))
    assert prefetcher.waited_s > 0
    assert not threads()


def test_it_works_ahead_by_no_more_than_its_depth(threads: Callable[[], list[threading.Thread]]):
    taken = []
    reached = threading.Event()

    def source() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            if number == 4:
                reached.set()
            yield number

    items = iter(Prefetcher(source(), depth=3))
    assert next(items) == 0
    assert reached.wait(10)  # one consumed, three ready, one in hand
    assert taken == [0, 1, 2, 3, 4]
    items.close()
    assert not threads()


def test_an_exception_is_raised_after_the_items_before_it(threads: Callable[[], list[threading.Thread]]):
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk gone")

    items = iter(Prefetcher(source()))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(items)
    assert not threads()


def test_the_thread_stops_when_the_consumer_fails_half_way(threads: Callable[[], list[threading.Thread]]):
    def endless() -> Iterator[int]:
        while True:
            yield 0

    def consume() -> None:
        for _ in Prefetcher(endless(), depth=2):
            raise ValueError("the model failed")

    with pytest.raises(ValueError, match="the model failed"):
        consume()
    assert not threads()
