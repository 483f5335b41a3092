"""Downloads through torchvision, from a server on this machine: good, truncated and changed files, and none at all."""

import gzip
import importlib.metadata
import io
import pickle
import socket
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from convolt.data.prepare import prepare
from convolt.data.sources import Torchvision, downloads
from convolt.data.sources.cifar100 import SUPERCLASSES
from convolt.errors import UserError
from local_server import Server, md5, server

__all__ = ["server"]

RANDOM = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


IMAGES = RANDOM.integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = (np.arange(30) % 10).astype(np.uint8)
MNIST = {
    "train-images-idx3-ubyte.gz": idx(IMAGES[:20]),
    "train-labels-idx1-ubyte.gz": idx(LABELS[:20]),
    "t10k-images-idx3-ubyte.gz": idx(IMAGES[20:]),
    "t10k-labels-idx1-ubyte.gz": idx(LABELS[20:]),
}
FIRST = "train-images-idx3-ubyte.gz"


@pytest.fixture
def mnist(server, monkeypatch):
    """A small MNIST on the server, with its checksums known to torchvision."""
    from torchvision.datasets import MNIST as CLASS

    monkeypatch.setattr(CLASS, "mirrors", [server.url])
    monkeypatch.setattr(CLASS, "resources", [(name, md5(content)) for name, content in MNIST.items()])
    server.files |= MNIST
    return server


def message(dataset: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        prepare(Torchvision(dataset), root)
    assert "\n" not in str(caught.value)
    assert [path.name for path in root.glob("*") if path.name != "downloads" and path.suffix != ".lock"] == []
    return str(caught.value)


def check_mnist(root: Path) -> None:
    dataset = prepare(Torchvision("MNIST"), root)
    assert np.array_equal(dataset.train_images, IMAGES[:20, ..., None])
    assert np.array_equal(dataset.test_images, IMAGES[20:, ..., None])
    assert dataset.train_labels.tolist() == LABELS[:20].tolist()
    assert dataset.test_labels.tolist() == LABELS[20:].tolist()
    assert dataset.classes == tuple("0123456789")


def test_mnist_is_downloaded_once(mnist, tmp_path, capfd):
    check_mnist(tmp_path)
    assert set(mnist.asked) == set(MNIST)
    mnist.asked.clear()
    check_mnist(tmp_path)
    assert mnist.asked == []
    assert (tmp_path / "downloads/mnist" / FIRST).read_bytes() == MNIST[FIRST]
    output = capfd.readouterr()
    assert output.out + output.err == ""  # no progress bar where there is no terminal
    assert socket.getdefaulttimeout() is None


def test_progress_is_shown_on_a_terminal(mnist, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    check_mnist(tmp_path)
    assert "100%" in capfd.readouterr().err


@pytest.mark.parametrize("spoilt", [MNIST[FIRST][:-50], MNIST[FIRST][:-1] + b"\1", b"<html>Sign in</html>", b""])
def test_spoilt_download_then_a_good_one(mnist, tmp_path, spoilt):
    mnist.files[FIRST] = spoilt
    text = message("MNIST", tmp_path)
    assert f"{mnist.url}{FIRST} sent is truncated or changed: its MD5 is not {md5(MNIST[FIRST])}" in text
    assert f"into {tmp_path}/downloads/mnist by hand" in text
    assert all(name in text for name in MNIST)
    assert "that is there" not in text  # it is not the user's file that is wrong
    assert not (tmp_path / "downloads/mnist" / FIRST).exists()
    mnist.files[FIRST] = MNIST[FIRST]
    check_mnist(tmp_path)


def test_only_what_is_missing_is_named_and_asked_for(mnist, tmp_path):
    last = "t10k-labels-idx1-ubyte.gz"
    mnist.files.pop(last)
    text = message("MNIST", tmp_path)
    assert "404" in text or "Not Found" in text
    assert f"put {last} into" in text
    mnist.files[last] = MNIST[last]
    mnist.asked.clear()
    check_mnist(tmp_path)
    assert set(mnist.asked) == {last}


def test_a_download_that_was_killed_half_way(mnist, tmp_path):
    (tmp_path / "downloads/mnist").mkdir(parents=True)
    (tmp_path / "downloads/mnist" / FIRST).write_bytes(MNIST[FIRST][:100])
    check_mnist(tmp_path)


def test_second_mirror(mnist, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST as CLASS

    monkeypatch.setattr(CLASS, "mirrors", [f"{mnist.url}gone/", mnist.url])
    check_mnist(tmp_path)


@pytest.mark.parametrize("place", ["downloads/mnist", "MNIST/raw"])
def test_files_put_by_hand_need_no_server(mnist, tmp_path, place):
    mnist.files.clear()
    (tmp_path / place).mkdir(parents=True)
    for name, content in MNIST.items():
        (tmp_path / place / name).write_bytes(content)
    check_mnist(tmp_path)
    assert mnist.asked == []


def test_wrong_file_put_by_hand_is_named(mnist, tmp_path):
    mnist.files.clear()
    folder = tmp_path / "downloads/mnist"
    folder.mkdir(parents=True)
    (folder / FIRST).write_bytes(b"not this one")
    assert f"the {FIRST} that is there is truncated or changed" in message("MNIST", tmp_path)


def test_no_server_at_all(mnist, tmp_path):
    mnist.close()
    text = message("MNIST", tmp_path)
    assert "check the internet connection" in text
    assert "refused" in text
    mnist._server.socket = socket.socket()  # for the fixture's own close
    mnist.close = lambda: None


def test_silent_server_is_given_up(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST as CLASS

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(CLASS, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        assert "timed out" in message("MNIST", tmp_path)
    assert socket.getdefaulttimeout() is None


def test_right_checksum_of_a_wrong_file(mnist, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST as CLASS

    for content in (b"no gzip", gzip.compress(b"no idx"), gzip.compress(gzip.decompress(MNIST[FIRST])[:-9])):
        monkeypatch.setattr(CLASS, "resources", [(n, md5(content if n == FIRST else c)) for n, c in MNIST.items()])
        mnist.files[FIRST] = content
        assert "cannot be read as MNIST" in message("MNIST", tmp_path)


# --- CIFAR


def tar(members: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PIXELS = RANDOM.integers(0, 256, (9, 3072), dtype=np.uint8)
NAMES = ["airplane", "automobile", "bird"]
CIFAR10 = {
    "cifar-10-batches-py/data_batch_1": {"data": PIXELS[:3], "labels": [0, 1, 2]},
    "cifar-10-batches-py/data_batch_2": {"data": PIXELS[3:6], "labels": [2, 1, 0]},
    "cifar-10-batches-py/test_batch": {"data": PIXELS[6:], "labels": [1, 0, 2]},
    "cifar-10-batches-py/batches.meta": {"label_names": NAMES},
}


def serve_cifar(server: Server, monkeypatch, name: str, content: bytes, members: dict[str, object]) -> str:
    """Serve an archive that torchvision knows, and whose members it expects."""
    import torchvision.datasets

    cls = getattr(torchvision.datasets, name)
    sums = [[member.split("/")[1], md5(pickle.dumps(batch, protocol=2))] for member, batch in members.items()]
    monkeypatch.setattr(cls, "url", server.url + cls.filename)
    monkeypatch.setattr(cls, "tgz_md5", md5(content))
    monkeypatch.setattr(cls, "train_list", [one for one in sums if one[0].startswith(("data_batch", "train"))])
    monkeypatch.setattr(cls, "test_list", [one for one in sums if one[0].startswith("test")])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": sums[-1][1]})
    server.files[cls.filename] = content
    return cls.filename


def test_cifar10(server, monkeypatch, tmp_path):
    content = tar(CIFAR10)
    file = serve_cifar(server, monkeypatch, "CIFAR10", content, CIFAR10)
    server.files[file] = content[:-30]
    assert f"put {file} into {tmp_path}/downloads/cifar10 by hand" in message("CIFAR10", tmp_path)
    server.files[file] = content
    dataset = prepare(Torchvision("CIFAR10"), tmp_path)
    assert dataset.train_images.shape == (6, 32, 32, 3)
    for image, row in zip([*dataset.train_images, *dataset.test_images], PIXELS, strict=True):
        for channel in range(3):
            assert np.array_equal(image[..., channel].ravel(), row[1024 * channel : 1024 * (channel + 1)])
    assert dataset.train_labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert dataset.test_labels.tolist() == [1, 0, 2]
    assert dataset.classes == tuple(NAMES)
    assert dataset.superclasses == {}


def test_cifar100_has_fine_labels_and_superclasses(server, monkeypatch, tmp_path):
    names = sorted(name for members in SUPERCLASSES.values() for name in members)
    members = {
        "cifar-100-python/train": {"data": PIXELS[:4], "fine_labels": [7, 99, 0, 50], "coarse_labels": [7, 13, 4, 16]},
        "cifar-100-python/test": {"data": PIXELS[4:6], "fine_labels": [1, 2], "coarse_labels": [1, 14]},
        "cifar-100-python/meta": {"fine_label_names": names, "coarse_label_names": list(SUPERCLASSES)},
    }
    serve_cifar(server, monkeypatch, "CIFAR100", tar(members), members)
    dataset = prepare(Torchvision("CIFAR100"), tmp_path)
    assert dataset.train_labels.tolist() == [7, 99, 0, 50]
    assert dataset.classes == tuple(names)
    assert dataset.superclasses == SUPERCLASSES


class Trap:
    def __reduce__(self):
        return eval, ("open('trapped', 'w')",)


def test_a_pickle_that_torchvision_does_not_know_is_not_run(server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    content = tar({**CIFAR10, "cifar-10-batches-py/data_batch_1": {"data": Trap(), "labels": [0, 1, 2]}})
    serve_cifar(server, monkeypatch, "CIFAR10", content, CIFAR10)
    assert "cannot be read as CIFAR10 (Dataset not found or corrupted" in message("CIFAR10", tmp_path / "root")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("lacking", ["cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"])
def test_archive_without_a_member(server, monkeypatch, tmp_path, lacking):
    content = tar({name: batch for name, batch in CIFAR10.items() if name != lacking})
    serve_cifar(server, monkeypatch, "CIFAR10", content, CIFAR10)
    assert "cannot be read as CIFAR10" in message("CIFAR10", tmp_path)


# --- torchvision itself


def test_unknown_dataset(tmp_path):
    assert "did you mean 'CIFAR100' or 'CIFAR10'" in message("CIFAR1000", tmp_path)


class Misfit:
    """Imports torchvision as one does that was built for another torch."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")


def test_torch_and_torchvision_that_do_not_fit(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Misfit(), *sys.meta_path])
    text = message("MNIST", tmp_path)
    assert "operator torchvision::nms does not exist" in text
    assert f"torch {importlib.metadata.version('torch')}" in text
    assert f"torchvision {importlib.metadata.version('torchvision')}" in text
    assert "pip install --upgrade --force-reinstall torch torchvision" in text


def test_importing_sources_and_preparation_imports_neither_torch_nor_pillow():
    import subprocess

    code = (
        "import sys, convolt.data.sources, convolt.data.prepare, convolt.data.labels\n"
        "print([name for name in ('torch', 'torchvision', 'PIL', 'sklearn', 'rich') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
