"""Predictions in shards, exactly once: `shards/part-00000000.parquet` and so on, and a manifest.

A shard holds the predictions of one part of the list. It is written whole by one worker, and its own metadata says
what of; so two workers that do the same part write the same file, and a restarted command knows what is done from the
files alone. `manifest.json` lists them when all are there.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundsight.cluster import listing
from soundsight.cluster.storage import Storage, is_address
from soundsight.errors import ConfigError
from soundsight.files import remove_drafts

JOB, MANIFEST, FAILURES, SOURCES, FOLDER = "job.json", "manifest.json", "failures.csv", "sources.txt", "shards"
KEY = b"soundsight.shard"  # of the metadata that says what a shard holds
READERS = 16  # shards that are read at once

Entry = dict[str, Any]  # of the manifest: index, file, sources, rows, failures, bytes, sources_sha256, sha256


@dataclass(frozen=True)
class Shard:
    """The recordings of one shard."""

    index: int  # in the job, from 0; -1: a recording that is tried alone, of which nothing is kept
    sources: tuple[str, ...]
    skip: Mapping[str, str] = field(default_factory=dict)  # those that kill a worker, with the reason

    def metadata(self, job: str, rows: int, failures: list[tuple[str, str]]) -> dict[bytes, bytes]:
        """What a shard's file says of itself; `job` is the job's hash."""
        names = "\n".join(map(listing.line, self.sources)).encode("utf-8", "surrogateescape")
        content = {"job": job, "index": self.index, "sources": len(self.sources), "rows": rows}
        content |= {"sources_sha256": hashlib.sha256(names).hexdigest(), "failures": failures}
        return {KEY: json.dumps(content).encode()}


def shard_name(index: int) -> str:
    """The file of a shard, below the job's folder."""
    return f"{FOLDER}/part-{index:08d}.parquet"


def commit(storage: Storage, data: bytes) -> Entry:
    """In a worker: write a shard; its entry in the manifest."""
    entry = _entry(data)
    storage.write(entry["file"], data)
    return entry


def _content(data: bytes) -> dict[str, Any]:
    """What a shard's file says of itself; raises if it is damaged."""
    from pyarrow import BufferReader, parquet

    metadata = parquet.read_metadata(BufferReader(data))
    content = dict(json.loads(metadata.metadata[KEY]))
    if content["rows"] != metadata.num_rows:
        raise ValueError("rows are missing")
    return content


def _entry(data: bytes) -> Entry:
    content = _content(data)
    content |= {"file": shard_name(content["index"]), "failures": len(content["failures"])}
    return content | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class Shards:
    """The folder of one job."""

    def __init__(self, storage: Storage, listed: listing.Listing, size: int, what: Mapping[str, Any]) -> None:
        """Open a folder, new or left by a former run of the same job: that of another raises `ConfigError`.

        A shard has `size` recordings; `what` is all else that decides the predictions: command, model, options.
        """
        self.storage, self.listed, self.size = storage, listed, size
        record = {"format": 1, **what, "sources": listed.count, "sources_sha256": listed.sha256, "shard": size}
        text = json.dumps(record, sort_keys=True, indent=2)
        self.job = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.count = -(-listed.count // size)
        self.done: dict[int, Entry] = {}
        if JOB in storage.sizes(""):
            self._same(json.loads(text))  # as the next run reads it: a tuple comes back as a list
            self._adopt()
            return
        if storage.sizes(FOLDER):
            raise ConfigError(f"{storage.where} holds shards without {JOB}; choose another folder with --out.")
        storage.write(SOURCES, listed.path)
        storage.write(JOB, text.encode())

    def missing(self) -> Iterator[Shard]:
        """The shards that are not there yet."""
        shards = (Shard(index, names) for index, names in enumerate(self.listed.chunks(self.size)))
        return (shard for shard in shards if shard.index not in self.done)

    def finish(self) -> dict[str, Any]:
        """Check that nothing is missing or doubled, and write failures and manifest; the manifest's totals."""
        there = self.storage.sizes(FOLDER)
        for index in range(self.count):
            name = shard_name(index)
            if index not in self.done or there.get(Path(name).name) != self.done[index]["bytes"]:
                raise ConfigError(f"{self.storage.path(name)} has vanished or changed; run the same command again.")
        with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:  # a list of millions may be wrong altogether
            draft = Path(folder, FAILURES)
            with open(draft, "w", encoding="utf-8", errors="backslashreplace", newline="") as text:
                csv.writer(text, lineterminator="\n").writerows([("source", "reason"), *self.failures()])
            self.storage.write(FAILURES, draft)
        entries = [self.done[index] for index in range(self.count)]
        totals = {name: sum(entry[name] for entry in entries) for name in ("sources", "rows", "failures", "bytes")}
        content = {"format": 1, "job": self.job, "complete": True, "shards": len(entries), **totals}
        lines = ",\n".join(json.dumps({k: v for k, v in entry.items() if k != "job"}) for entry in entries)
        self.storage.write(MANIFEST, f'{json.dumps(content, indent=1)[:-2]},\n "entries": [\n{lines}\n]}}\n'.encode())
        return content

    def failures(self) -> Iterator[tuple[str, str]]:
        """The recordings that could not be read, each with its reason, in the order of the list."""
        for index in range(self.count):
            if self.done[index]["failures"]:
                yield from map(tuple, _content(self.storage.read(shard_name(index)))["failures"])

    def _same(self, record: dict[str, Any]) -> None:
        try:
            found = dict(json.loads(self.storage.read(JOB)))
        except ValueError as error:
            raise ConfigError(f"{self.storage.path(JOB)} is damaged; choose another folder with --out.") from error
        different = [key for key in record | found if found.get(key) != record.get(key)]
        if different:
            raise ConfigError(
                f"{self.storage.where} holds the predictions of another job (it differs in: "
                f"{', '.join(different[:6])}); choose another folder with --out, or delete this one."
            )

    def _adopt(self) -> None:
        """Take over the shards of a former run that are whole and ours; delete what is not."""
        if not is_address(self.storage.where):
            remove_drafts(Path(self.storage.path(FOLDER)))
        with ThreadPoolExecutor(READERS) as threads:
            for name, entry in threads.map(self._verify, self.storage.sizes(FOLDER)):
                if entry is None:
                    self.storage.remove(name)
                else:
                    self.done[entry["index"]] = entry

    def _verify(self, file: str) -> tuple[str, Entry | None]:
        name = f"{FOLDER}/{file}"
        try:
            entry = _entry(self.storage.read(name))
        except (ConfigError, ValueError, KeyError, OSError):
            return name, None
        return name, entry if (entry["job"], entry["file"]) == (self.job, name) else None
