"""MQTT with Home Assistant's discovery: each class is a binary sensor that is on while the class goes on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from soundsight.errors import ConfigError
from soundsight.inference.triggers import BEGIN, QUEUE, Message

PORT, TLS_PORT = 1883, 8883
KEEP_ALIVE_SECONDS = 30
CLOSING_SECONDS = 3.0
QUALITY = 1  # at least once
_log = logging.getLogger(__name__)


class Mqtt:
    """A client of a broker, which goes on trying to reach it.

    Topics are `soundsight/NODE/status` (online, offline), `soundsight/NODE/CLASS/state` (ON, OFF, retained) and
    `soundsight/NODE/events` (JSON). `homeassistant/binary_sensor/soundsight_NODE/CLASS/config` tells Home Assistant.
    """

    name = "--mqtt"

    def __init__(self, address: str, *, labels: Sequence[str], node: str, user: str = "", password: str = "") -> None:
        """Connect in the background.

        Args:
            address: HOST, HOST:PORT, or mqtts://HOST for TLS.
            labels: Classes that are watched.
            node: What this listener is called.
            user: For brokers that ask; the password comes from the environment.
            password: Likewise.

        Raises:
            ConfigError: paho-mqtt is missing, or the address is no address.
        """
        try:
            from paho.mqtt import client as paho
        except ImportError as error:
            raise ConfigError('MQTT needs the package paho-mqtt; run pip install "soundsight[mqtt]".') from error
        found = re.fullmatch(r"(?:(mqtts?)://)?(\[[0-9A-Fa-f:.]+\]|[^:/\s]+)(?::(\d{1,5}))?/?", address)
        if not found:
            raise ConfigError(f"--mqtt {address[:100]} is no broker; write HOST, HOST:PORT or mqtts://HOST.")
        scheme, host, port = found.groups()
        self.base, self.node = f"soundsight/{slug(node)}", node
        self.states = dict.fromkeys(labels, "OFF")
        self.last: Any = None  # what was published last
        self.full = paho.MQTT_ERR_QUEUE_SIZE
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.max_queued_messages_set(QUEUE)
        self.client.on_connect_fail = self._complain
        self.client.on_disconnect = self._complain
        self.client.on_connect = self._greet
        self.client.will_set(f"{self.base}/status", "offline", QUALITY, retain=True)
        if user:
            self.client.username_pw_set(user, password or None)
        if scheme == "mqtts":
            self.client.tls_set()
        number = int(port) if port else TLS_PORT if scheme == "mqtts" else PORT
        self.client.connect_async(host.strip("[]"), number, KEEP_ALIVE_SECONDS)
        self.client.loop_start()

    def send(self, message: Message) -> None:
        """See `Receiver`; without a connection messages wait in the client."""
        self.states[message.label] = "ON" if message.event == BEGIN else "OFF"
        self._publish(f"{self.base}/{slug(message.label)}/state", self.states[message.label], retain=True)
        self._publish(f"{self.base}/events", message.json())
        if self.last.rc == self.full:
            raise OSError("the broker is not reached, and no more messages can wait")

    def close(self) -> None:
        """See `Receiver`."""
        self._publish(f"{self.base}/status", "offline", retain=True)
        with suppress(RuntimeError, ValueError):  # there is no connection, or too much waits
            self.last.wait_for_publish(CLOSING_SECONDS)
        self.client.on_disconnect = None
        self.client.disconnect()
        self.client.loop_stop()

    def _greet(self, client: Any, *_: Any) -> None:
        """Tell Home Assistant of the sensors, whenever a connection is made."""
        for label, state in self.states.items():
            topic = f"{self.base}/{slug(label)}/state"
            config = {
                "name": label.replace("_", " "),
                "unique_id": f"soundsight_{slug(self.node)}_{slug(label)}",
                "state_topic": topic,
                "availability_topic": f"{self.base}/status",
                "device_class": "sound",
                "device": {"identifiers": [f"soundsight_{slug(self.node)}"], "name": f"Soundsight {self.node}"},
            }
            place = f"homeassistant/binary_sensor/soundsight_{slug(self.node)}/{slug(label)}/config"
            self._publish(place, json.dumps(config), retain=True)
            self._publish(topic, state, retain=True)
        self._publish(f"{self.base}/status", "online", retain=True)

    def _complain(self, *_: Any) -> None:
        _log.warning("The MQTT broker is not reached; trying again.")

    def _publish(self, topic: str, text: str, *, retain: bool = False) -> None:
        self.last = self.client.publish(topic, text, QUALITY, retain)


def slug(text: str) -> str:
    """A name as Home Assistant takes it in topics: letters, digits, `_` and `-`; others as `_`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text) or "_"
