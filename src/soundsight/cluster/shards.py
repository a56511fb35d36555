"""Answers in shards, exactly once: `shards/part-00000000.parquet` and so on, and a manifest.

A shard holds the answers to one part of the list. It is written whole by one worker, and carries in its own
metadata what it answers; so two workers that do the same part write the same file, and a restarted job knows
what is done from the files alone. `manifest.json` lists them, and says at the end that it is complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from soundsight.cluster.listing import Listing, Part
from soundsight.cluster.storage import Place
from soundsight.errors import ConfigError

JOB, MANIFEST, FAILURES, SOURCES, FOLDER = "job.json", "manifest.json", "failures.csv", "sources.txt", "shards"
KEY = b"soundsight.shard"  # of the metadata that says what a shard answers
SAVE_SECONDS = 30.0  # between two interim manifests
READERS = 16  # footers that are read at once

Entry = dict[str, Any]  # of the manifest: index, file, sources, rows, failures, bytes, sources_sha256, sha256


def shard_name(index: int) -> str:
    """The file of a shard, below the job's folder."""
    return f"{FOLDER}/part-{index:08d}.parquet"


def commit(place: Place, part: Part, data: bytes, *, rows: int, failures: int) -> Entry:
    """In a worker: write a shard; its entry in the manifest."""
    place.write(shard_name(part.index), data)
    return {
        "index": part.index,
        "file": shard_name(part.index),
        "sources": len(part.sources),
        "rows": rows,
        "failures": failures,
        "bytes": len(data),
        "sources_sha256": part.sha256,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def metadata(fingerprint: str, part: Part, rows: int, failures: list[tuple[str, str]]) -> dict[bytes, bytes]:
    """What a shard says of itself."""
    content = {
        "job": fingerprint,
        "index": part.index,
        "sources": len(part.sources),
        "sources_sha256": part.sha256,
        "rows": rows,
        "failures": failures,
    }
    return {KEY: json.dumps(content).encode()}


class Shards:
    """The folder of one job."""

    def __init__(self, place: Place, listing: Listing, size: int, what: Mapping[str, Any]) -> None:
        """Open a folder, new or left by a former run of the same job.

        Args:
            place: The folder.
            listing: The recordings.
            size: Recordings a shard.
            what: Everything else that decides the answers: command, model, options.

        Raises:
            ConfigError: The folder holds another job, or cannot be used.
        """
        self.place, self.listing, self.size = place, listing, size
        record = {"format": 1, **what, "sources": listing.count, "sources_sha256": listing.sha256, "shard": size}
        text = json.dumps(record, sort_keys=True, indent=2)
        self.record = json.loads(text)  # as the next run reads it: a tuple comes back as a list
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.count = -(-listing.count // size)
        self.done: dict[int, Entry] = {}
        self.saved = time.monotonic()
        if place.has(JOB):
            self._same(place.read(JOB))
            place.clean(FOLDER)
            self._adopt()
        else:
            if place.sizes(FOLDER):
                raise ConfigError(f"{place.where} holds shards without {JOB}; choose another folder with --out.")
            with open(listing.path, "rb") as lines:
                place.copy(SOURCES, lines)
            place.write(JOB, text.encode())

    def missing(self) -> Iterator[Part]:
        """The parts that are not answered yet."""
        return (part for part in self.listing.parts(self.size) if part.index not in self.done)

    def add(self, entry: Entry) -> None:
        """Note a finished shard."""
        self.done[entry["index"]] = entry
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._save(complete=False)

    def finish(self) -> dict[str, Any]:
        """Check that nothing is missing or doubled, and write failures and manifest; the manifest's totals.

        Raises:
            ConfigError: A shard has vanished meanwhile.
        """
        there = self.place.sizes(FOLDER)
        for index in range(self.count):
            entry = self.done.get(index)
            if entry is None or there.get(entry["file"].rpartition("/")[2]) != entry["bytes"]:
                raise ConfigError(
                    f"{self.place.path(shard_name(index))} has vanished or changed; run the same command again."
                )
        self._write_failures()
        return self._save(complete=True)

    def failures(self) -> Iterator[tuple[str, str]]:
        """The recordings that could not be read, each with its reason, in the order of the list."""
        for index in sorted(self.done):
            if self.done[index]["failures"]:
                yield from map(tuple, self._inspect(shard_name(index))["failures"])

    def _write_failures(self) -> None:
        with tempfile.TemporaryFile() as draft:  # a list of millions may be wrong altogether
            text = io.TextIOWrapper(draft, encoding="utf-8", errors="backslashreplace", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["source", "reason"])
            writer.writerows(self.failures())
            text.flush()
            draft.seek(0)
            self.place.copy(FAILURES, cast(BinaryIO, draft))
            text.detach()

    def _save(self, *, complete: bool) -> dict[str, Any]:
        entries = [self.done[index] for index in sorted(self.done)]
        totals = {name: sum(entry[name] for entry in entries) for name in ("sources", "rows", "failures", "bytes")}
        content = {"format": 1, "job": self.fingerprint, "complete": complete, "shards": len(entries), **totals}
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        head = json.dumps(content, indent=1)[:-2]
        self.place.write(MANIFEST, f'{head},\n "entries": [\n{lines}\n]}}\n'.encode())
        self.saved = time.monotonic()
        return content

    def _same(self, text: bytes) -> None:
        try:
            found = json.loads(text)
            different = [key for key in self.record if found.get(key) != self.record[key]]
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{self.place.path(JOB)} is damaged; choose another folder with --out.") from error
        if different or set(found) != set(self.record):
            names = ", ".join(different[:6]) or "its format"
            raise ConfigError(
                f"{self.place.where} holds the answers of another job (it differs in: {names}); choose another folder "
                "with --out, or delete this one."
            )

    def _adopt(self) -> None:
        """Take over the shards of a former run that are whole; delete what is not."""
        listed: dict[str, Entry] = {}
        if self.place.has(MANIFEST):
            try:
                content = json.loads(self.place.read(MANIFEST))
                if content["job"] == self.fingerprint:
                    listed = {entry["file"].rpartition("/")[2]: entry for entry in content["entries"]}
            except (ValueError, KeyError, TypeError):
                listed = {}  # the shards tell it, too
        there = self.place.sizes(FOLDER)
        known = [listed[name] for name in there if name in listed and listed[name]["bytes"] == there[name]]
        self.done = {entry["index"]: entry for entry in known}
        unknown = [name for name in there if name not in listed or listed[name]["bytes"] != there[name]]
        with ThreadPoolExecutor(READERS) as threads:
            for entry in threads.map(self._verify, unknown):
                if entry is not None:
                    self.done[entry["index"]] = entry

    def _verify(self, name: str) -> Entry | None:
        """The entry of a shard that no manifest lists; `None`, and it is deleted, if it is not whole and ours."""
        try:
            said = self._inspect(f"{FOLDER}/{name}")
            whole = said["job"] == self.fingerprint and name == shard_name(said["index"]).rpartition("/")[2]
        except (ConfigError, ValueError, KeyError, OSError):
            whole = False
        if not whole:
            self.place.remove(f"{FOLDER}/{name}")
            return None
        data = self.place.read(f"{FOLDER}/{name}")
        said |= {"file": f"{FOLDER}/{name}", "failures": len(said["failures"])}
        said |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return {key: value for key, value in said.items() if key != "job"}

    def _inspect(self, name: str) -> dict[str, Any]:
        """What a shard says of itself; raises if its Parquet is damaged."""
        from pyarrow import parquet

        with self.place.open(name) as stream:
            file = parquet.ParquetFile(stream)
            said = dict(json.loads(file.metadata.metadata[KEY]))
            if said["rows"] != file.metadata.num_rows:
                raise ValueError("rows are missing")
        return said
