import threading
import time
from collections.abc import Iterator

import pytest
import torch

from convolt.data.augment import Augmentation
from convolt.data.loader import Batch, BatchLoader, Preprocessing
from convolt.data.prefetch import prefetch
from convolt.data.transforms import Crop, Flip


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("convolt-prefetch")]


def test_results_come_in_order_and_the_thread_ends() -> None:
    assert list(prefetch(lambda item: item * item, range(20))) == [item * item for item in range(20)]
    assert list(prefetch(str, [])) == []
    assert not threads()


def test_the_thread_is_ahead_by_the_depth_and_no_more() -> None:
    done: list[int] = []
    results = prefetch(lambda item: done.append(item) or item, range(10), depth=2)
    assert done == []
    assert next(results) == 0
    deadline = time.monotonic() + 5
    while len(done) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert done == [0, 1, 2]
    results.close()  # type: ignore[attr-defined]
    assert not threads()


def test_an_error_is_raised_where_its_result_is_due() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise MemoryError("no room")
        return item

    results = prefetch(work, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(MemoryError, match="no room"):
        next(results)
    assert not threads()


def batches(device: torch.device, *, training: bool) -> Iterator[Batch]:
    """Batches of images on the CPU; for "cpu:0", which equals no tensor's device, as they are streamed to a GPU."""
    images = torch.randint(0, 256, (50, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return iter(
        BatchLoader(
            images, torch.arange(50) % 7, torch.arange(0, 50, 2), Preprocessing(1, 8, [0.5] * 3, [0.2] * 3), 4, device,
            seed=3, epoch=(lambda: 2) if training else None, num_classes=7,
            augmentation=Augmentation({"crop": Crop(2), "flip": Flip()}, copies=1) if training else Augmentation(),
        )
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_streamed_batches_equal_those_of_images_on_the_device(training: bool) -> None:
    resident = list(batches(torch.device("cpu"), training=training))
    streamed = list(batches(torch.device("cpu:0"), training=training))
    assert len(resident) == len(streamed) == (13 if training else 7)
    for (images, labels, *_), (same_images, same_labels, *_) in zip(resident, streamed, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_an_epoch_that_is_left_leaves_no_thread() -> None:
    epoch = batches(torch.device("cpu:0"), training=True)
    next(epoch)
    assert threads()
    epoch.close()  # type: ignore[attr-defined]
    assert not threads()
