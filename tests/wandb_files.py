"""Read W&B's offline files: frames of the LevelDB log format around wandb's own records."""

import struct
import zlib

_HEADER_BYTES, _BLOCK_BYTES, _FRAME = 7, 32768, struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path):
    """Yield the records of a `.wandb` file; every frame's checksum is verified."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B", "not a wandb file"
    place, whole = _HEADER_BYTES, b""
    while place < len(data):
        left = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left < _FRAME.size:
            place += left
            continue
        checksum, size, kind = _FRAME.unpack_from(data, place)
        if size == 0 and kind == 0:
            place += left
            continue
        body = data[place + _FRAME.size : place + _FRAME.size + size]
        assert len(body) == size, "a frame is cut short"
        assert checksum == zlib.crc32(bytes([kind]) + body), "a frame is damaged"
        place += _FRAME.size + size
        whole = body if kind in (_FULL, _FIRST) else whole + body
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(whole)
            yield record


def read_run(path):
    """Return a run's id, group, job type, config, points, summary, artifacts and exit code."""
    import json

    found = {"points": [], "summary": {}, "config": {}, "artifacts": [], "exit_code": None}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found |= {"id": run.run_id, "group": run.run_group, "kind": run.job_type, "name": run.display_name}
            found |= {"project": run.project, "tags": list(run.tags)}
            found["config"] |= {u.key or "/".join(u.nested_key): json.loads(u.value_json) for u in run.config.update}
        elif kind == "config":
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.config.update}
        elif kind == "history":
            point = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            found["points"].append({**point, "_step": record.history.step.num})
        elif kind == "summary":
            for item in record.summary.update:
                found["summary"][item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind in ("artifact", "request") and record.WhichOneof("record_type") == "artifact":
            found["artifacts"].append((record.artifact.type, record.artifact.name))
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    return found
