"""A producer that sends what Python's own client refuses to: header names of any bytes, any timestamp.

It calls the C library that the client brings, whose API is documented in `rdkafka.h`.
"""

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import confluent_kafka

from ml_assets.landing.kafka import KafkaConnection

Header = tuple[bytes, bytes | None]

_PRODUCER, _COPY = 0, 2
_TEXT = 512
# Of `rd_kafka_vtype_t`: what the next arguments of `rd_kafka_producev` are.
_END, _TOPIC, _VALUE, _KEY, _OPAQUE, _MSGFLAGS, _TIMESTAMP, _HEADER = 0, 1, 4, 5, 6, 7, 8, 9


class _Record(ctypes.Structure):
    """The first and the last fields of `rd_kafka_message_t`."""

    _fields_ = (
        ("error", ctypes.c_int),
        ("topic", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("value", ctypes.c_void_p),
        ("value_size", ctypes.c_size_t),
        ("key", ctypes.c_void_p),
        ("key_size", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("opaque", ctypes.c_void_p),
    )


# Called for each record when the broker has answered.
_Delivered = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_Record), ctypes.c_void_p)


class RawProducer:
    """Sends records byte for byte, each by itself: one that the broker refuses takes no other along."""

    def __init__(self, kafka: KafkaConnection, **more: str) -> None:
        self._lib = _library()
        self._sent = 0
        self._refused: set[int] = set()
        conf = ctypes.c_void_p(self._lib.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(_TEXT)
        for name, value in {**kafka.config(log_level=0, batch_num_messages=1), **more}.items():
            if self._lib.rd_kafka_conf_set(conf, name.encode(), str(value).encode(), text, _TEXT) != 0:
                raise ValueError(text.value.decode())
        self._delivered = _Delivered(self._note)
        self._lib.rd_kafka_conf_set_dr_msg_cb(conf, self._delivered)
        self._client = ctypes.c_void_p(self._lib.rd_kafka_new(_PRODUCER, conf, text, _TEXT))
        if not self._client.value:
            raise ValueError(text.value.decode())

    def _note(self, _client: int, record: Any, _opaque: int) -> None:
        if record[0].error:
            self._refused.add((record[0].opaque or 0) - 1)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Iterable[Header] = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Queue a record. A time of 0 is now."""
        pieces: list[object] = [ctypes.c_int(_TOPIC), ctypes.c_char_p(topic.encode())]
        pieces += [ctypes.c_int(_MSGFLAGS), ctypes.c_int(_COPY)]
        pieces += [ctypes.c_int(_VALUE), *_sized(value), ctypes.c_int(_KEY), *_sized(key)]
        pieces += [ctypes.c_int(_TIMESTAMP), ctypes.c_int64(timestamp_ms)]
        for name, content in headers:
            size = -1 if content is None else len(content)
            pieces += [ctypes.c_int(_HEADER), ctypes.c_char_p(name), ctypes.c_char_p(content), ctypes.c_ssize_t(size)]
        self._sent += 1
        pieces += [ctypes.c_int(_OPAQUE), ctypes.c_void_p(self._sent)]
        code = self._lib.rd_kafka_producev(self._client, *pieces, ctypes.c_int(_END))
        if code != 0:
            self._refused.add(self._sent - 1)

    def close(self) -> set[int]:
        """Wait until the broker has everything, end, and return the numbers of the records that were refused.

        They count from 0 in the order of sending; the client or the broker has refused them.
        """
        left = self._lib.rd_kafka_flush(self._client, ctypes.c_int(60_000))
        self._lib.rd_kafka_destroy(self._client)
        assert left == 0, "the broker does not answer"
        return self._refused


def _sized(content: bytes | None) -> tuple[ctypes.c_char_p, ctypes.c_size_t]:
    return ctypes.c_char_p(content), ctypes.c_size_t(len(content or b""))


def _library() -> ctypes.CDLL:
    (found,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka-*")
    lib = ctypes.CDLL(str(found))
    lib.rd_kafka_conf_new.restype = ctypes.c_void_p
    lib.rd_kafka_new.restype = ctypes.c_void_p
    return lib
