from __future__ import annotations

import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.camera.clip import ClipSource
from edge_mnv2.camera.content import has_lost_packets
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.errors import SourceError
from edge_mnv2.pipeline.capture import Capture
from tests.camera import mp4

SMALL = [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "MJPG"), ("webm", "VP80"), ("mov", "mp4v"), ("ts", "mp4v")]


def pictures(count: int = 60, width: int = 160, height: int = 120) -> list[np.ndarray]:
    """Red, with a blue square that moves along the top from the left."""
    made = []
    for number in range(count):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[..., 0] = 255
        picture[:24, number : number + 24] = (0, 0, 255)
        made.append(picture)
    return made


def read_all(source: ClipSource) -> list:
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 30) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


@pytest.mark.parametrize(("suffix", "fourcc"), SMALL)
def test_whole_clips_give_every_frame_in_colour_and_time(tmp_path: Path, suffix: str, fourcc: str) -> None:
    path = tmp_path / f"a.{suffix}"
    mp4.write_clip(path, pictures(), fourcc)
    with open_source(str(path)) as source:
        frames = read_all(source)
        assert not source.live and source.error_count == 0 and source.decode_errors == 0
        assert source.granted.width == 160 and source.granted.height == 120
    assert len(frames) == 60 and [frame.index for frame in frames] == list(range(60))
    assert near(frames[30].image[80, 80], (255, 0, 0)) and near(frames[30].image[10, 42], (0, 0, 255), 60)
    steps = np.diff([frame.position_ns for frame in frames])
    assert frames[0].position_ns == 0 and np.allclose(steps, 50e6, atol=1.5e6)


def passes_are_equal(source: ClipSource) -> bool:
    """Reads `source` to its end, and again if it can begin again; whether it could."""
    first = [(frame.index, frame.position_ns, frame.pixels.copy()) for frame in read_all(source)]
    if not source.rewind():
        return False
    second = read_all(source)
    assert [(frame.index, frame.position_ns) for frame in second] == [one[:2] for one in first]
    assert all(np.array_equal(frame.pixels, pixels) for frame, (_, _, pixels) in zip(second, first))
    assert source.error_count == 0 and source.rewind()
    return True


@pytest.mark.parametrize(("suffix", "fourcc"), SMALL)
def test_a_whole_clip_begins_again_without_being_opened(tmp_path: Path, suffix: str, fourcc: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = mp4.write_clip(path, pictures(20), fourcc)
    with open_source(str(path)) as source:
        assert isinstance(source, ClipSource)
        counted = suffix in ("mp4", "mov", "avi")
        assert passes_are_equal(source) == counted
        if not counted:
            return
        read_all(source)
        path.unlink()
        path.write_bytes(whole)
        assert not source.rewind(), "another file is in its place"
    path.write_bytes(mp4.index_first(whole)[:-400] if suffix != "avi" else whole[:-2000])
    with open_source(str(path)) as source:
        assert isinstance(source, ClipSource) and not passes_are_equal(source)


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_clips_of_today_begin_again(tmp_path: Path, encoded: Callable[[str, str], bytes], encoder: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(encoded("mp4", encoder))
    with open_source(str(path)) as source:
        assert isinstance(source, ClipSource) and passes_are_equal(source) == (encoder == "libx264")


@pytest.mark.parametrize("inline", [False, True])
def test_a_clip_that_is_repeated_counts_on(tmp_path: Path, inline: bool) -> None:
    path = tmp_path / "a.mp4"
    mp4.write_clip(path, pictures(20), "mp4v")
    with open_source(str(path)) as source:
        capture = Capture(source, lossless=True, paced=False, repeat=True, inline=inline)
        capture.start()
        frames = []
        while len(frames) < 50:
            frame = capture.take(5.0)
            assert frame is not None
            frames.append((frame.index, frame.position_ns, frame.pixels.copy()))
        capture.stop()
    assert [index for index, _, _ in frames] == list(range(50))
    for before, after in zip(frames, frames[20:]):
        assert before[1] == after[1] and np.array_equal(before[2], after[2])


def test_variable_frame_rates_keep_their_times(tmp_path: Path) -> None:
    whole = mp4.write_clip(tmp_path / "a.mp4", pictures(), "mp4v")
    (tmp_path / "b.mp4").write_bytes(mp4.without_edit_list(mp4.variable_rate(whole, 40, 20, 5)))
    with open_source(str(tmp_path / "b.mp4")) as source:
        frames = read_all(source)
        assert source.error_count == 0
    steps = np.diff([frame.position_ns for frame in frames]) / 1e6
    assert len(frames) == 60
    assert np.allclose(steps[:39], 50, atol=1) and np.allclose(steps[41:], 250, atol=1)


def test_a_trimmed_clip_is_not_called_cut_short(tmp_path: Path) -> None:
    whole = mp4.write_clip(tmp_path / "a.mp4", pictures(), "mp4v")
    # The edit list still says three seconds, which is fewer frames now.
    (tmp_path / "b.mp4").write_bytes(mp4.variable_rate(whole, 40, 20, 5))
    with open_source(str(tmp_path / "b.mp4")) as source:
        assert 40 < len(read_all(source)) < 50
        assert source.error_count == 0


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotation_tag_is_applied(tmp_path: Path, degrees: int) -> None:
    # What a phone stores so that the tag turns it upright again.
    stored = [np.rot90(picture, degrees // 90) for picture in pictures(8)]
    path = tmp_path / "phone.mp4"
    path.write_bytes(mp4.rotated(mp4.write_clip(tmp_path / "a.mp4", stored, "mp4v"), degrees))
    with open_source(str(path)) as source:
        frame = source.read()
        assert (source.granted.width, source.granted.height) == (160, 120)
    assert frame is not None and frame.pixels.shape == (120, 160, 3)
    assert near(frame.image[8, 8], (0, 0, 255), 60)
    assert all(near(frame.image[y, x], (255, 0, 0), 60) for y, x in ((8, 150), (112, 8), (112, 150)))


def test_settings_turn_after_the_tag_and_choose_a_region(tmp_path: Path) -> None:
    mp4.write_clip(tmp_path / "a.mp4", pictures(4), "mp4v")
    settings = CameraSettings(rotate=90, roi="0.5,0,0.5,0.5")
    with open_source(str(tmp_path / "a.mp4"), settings) as source:
        frame = source.read()
    assert frame is not None and frame.pixels.shape == (160, 120, 3) and frame.roi == (60, 0, 60, 80)
    assert near(frame.image[8, 112], (0, 0, 255), 60) and frame.region.shape == (80, 60, 3)
    assert np.shares_memory(frame.region, frame.pixels)


@pytest.mark.parametrize(("suffix", "fourcc"), [pair for pair in SMALL if pair[0] != "ts"])
def test_a_clip_cut_in_half_is_reported_with_both_numbers(tmp_path: Path, suffix: str, fourcc: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = mp4.write_clip(path, pictures(), fourcc)
    if suffix in ("mp4", "mov"):
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SourceError, match=path.name):
            open_source(str(path)).open()
        whole = mp4.index_first(whole)
        path.write_bytes(whole)
        with open_source(str(path)) as source:
            assert len(read_all(source)) == 60 and source.error_count == 0
    path.write_bytes(whole[: len(whole) // 2])
    with open_source(str(path)) as source:
        read = len(read_all(source))
        assert 0 < read < 60 and source.decode_errors == 60 - read
        assert source.error_count == 1 and f"{read} of 60 frames" in source.errors[0] and path.name in source.errors[0]


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mkv", "mp4", "mov", "flv", "avi"])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "mpeg2video"])
def test_a_pause_in_a_sound_clip_is_no_damage(tmp_path: Path, suffix: str, codec: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"pause.{suffix}"
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.max_b_frames = 160, 120, "yuv420p", 0
            for number, picture in enumerate(pictures()):
                frame = av.VideoFrame.from_ndarray(picture)
                frame.pts, frame.time_base = number + (100 if number >= 30 else 0), Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"{codec} in {suffix}: {error}")
    with open_source(str(path)) as source:
        read = len(read_all(source))
        assert read == 60 and source.error_count == 0 and source.decode_errors == 0


def test_packets_that_are_missing_from_a_transport_stream_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    whole = mp4.write_clip(path, pictures(), "mp4v")
    middle = len(whole) // 3 // 188 * 188
    path.write_bytes(whole[:middle] + whole[middle + 188 * 20 :])
    assert has_lost_packets(path)
    path.write_bytes(whole + whole[-188:])
    assert not has_lost_packets(path)


@pytest.mark.parametrize(("suffix", "fourcc"), [("avi", "MJPG"), ("mp4", "mp4v"), ("ts", "mp4v")])
def test_a_hole_inside_a_clip_is_reported(tmp_path: Path, suffix: str, fourcc: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = mp4.write_clip(path, pictures(), fourcc)
    middle, hole = len(whole) // 3, len(whole) // 8
    path.write_bytes(whole[:middle] + bytes(hole) + whole[middle + hole :])
    with open_source(str(path)) as source:
        read = len(read_all(source))
        # Without a frame rate (OpenCV 4.6 does not know a transport stream's) nothing says how many there should be.
        if source.granted.fps is not None:
            assert read < 60 and source.decode_errors > 0 and source.error_count == 1


def test_transport_streams_that_were_put_together_keep_time_and_are_whole(tmp_path: Path) -> None:
    """Their clock goes back at the seam, or on by a day: what is shorter than a minute before wraps around."""
    path = tmp_path / "a.ts"
    first, long = mp4.write_clip(path, pictures(20), "mp4v"), mp4.write_clip(path, pictures(80), "mp4v", fps=1)
    for parts, count in (((first, first, first), 60), ((long, first), 100), ((first, long), 100)):
        path.write_bytes(b"".join(parts))
        with open_source(str(path)) as source:
            positions = [frame.position_ns for frame in read_all(source)]
            assert len(positions) == count and (source.errors, source.decode_errors) == ([], 0)
        assert np.diff(positions).min() > 0 and np.diff(positions).max() < 1.1e9
    damaged = bytearray(first + first)
    damaged[188 * 30 : 188 * 32] = bytes(376)
    path.write_bytes(damaged)
    with open_source(str(path)) as source:
        read_all(source)
        assert source.error_count == 1


@pytest.mark.parametrize("rate", [(1, 10**6), (100_000, 1), (0, 0)])
def test_a_rate_that_nobody_believes_is_a_usual_one(tmp_path: Path, rate: tuple[int, int]) -> None:
    path = tmp_path / "a.avi"
    whole = bytearray(mp4.write_clip(path, pictures(), "MJPG"))
    struct.pack_into("<II", whole, whole.index(b"strh") + 28, *rate)
    struct.pack_into("<I", whole, whole.index(b"avih") + 8, rate[0] * 10**6 // max(1, rate[1]) % 2**32)
    path.write_bytes(whole)
    with open_source(str(path)) as source:
        assert [frame.position_ns for frame in read_all(source)] == [40_000_000 * number for number in range(60)]
        assert source.error_count == 0
    path.write_bytes(whole[: len(whole) // 2])
    with open_source(str(path)) as source:
        assert len(read_all(source)) < 60 and source.error_count == 1


def test_reading_again_reports_again_only_once(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    whole = mp4.write_clip(path, pictures(), "MJPG")
    path.write_bytes(whole[: len(whole) // 2])
    source = open_source(str(path))
    for _ in range(3):
        with source:
            read_all(source)
    assert source.error_count == 1 and source.read() is None


def test_what_is_no_clip_gives_one_line(tmp_path: Path) -> None:
    contents = {
        "text.mp4": b"hello\n" * 100,
        "list.m3u8": b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n",
        "page.avi": b"<html></html>",
        "empty.mkv": b"",
        "noise.mp4": bytes(random.Random(1).randrange(256) for _ in range(5000)),
        "head.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(400),
        "notes.txt": b"some notes\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError) as caught, open_source(str(tmp_path / name)) as source:
            read_all(source)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_clips_give_frames_or_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    dice = random.Random(11)
    wholes = {}
    for suffix, fourcc in SMALL:
        path = tmp_path / f"whole.{suffix}"
        wholes[suffix] = mp4.write_clip(path, pictures(20, 64, 48), fourcc)
        path.unlink()
    capfd.readouterr()  # what the writer said
    read = refused = 0
    for number in range(100):
        suffix = dice.choice(list(wholes))
        data = bytearray(wholes[suffix])
        for _ in range(dice.choice([1, 4, 30])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(data)
        try:
            with open_source(str(path)) as source:
                for _ in range(200):
                    frame = source.read()
                    if frame is None:
                        break
                    assert frame.pixels.dtype == np.uint8 and frame.pixels.ndim == 3 and frame.pixels.shape[2] == 3
            read += 1
        except SourceError as error:
            assert path.name in str(error) and "\n" not in str(error)
            refused += 1
    out, err = capfd.readouterr()
    assert read and refused and out == "" and err == ""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "frames"), [("bigbuckbunny.mp4", 132), ("bikes.mp4", 250), ("Megamind.avi", 270)])
def test_reference_clips_are_whole(data: Path, name: str, frames: int) -> None:
    with open_source(str(data / "video" / name)) as source:
        positions = [frame.position_ns for frame in read_all(source)]
        assert len(positions) == frames and source.error_count == 0
    assert positions == sorted(set(positions))


def test_the_demo_is_fetched_and_called_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_mnv2.zoo import pull

    mp4.write_clip(tmp_path / "bikes.mp4", pictures(5), "mp4v")
    monkeypatch.setattr(pull, "fetch", lambda name, why="", **more: tmp_path / "bikes.mp4")
    with open_source("demo") as source:
        assert source.description == "demo" and len(read_all(source)) == 5


# Damage in the middle, and what cannot be decoded


def decodable(path: Path) -> int:
    """Frames that FFmpeg's own libraries decode, going on over errors, as `ffprobe -count_frames` counts them."""
    av = pytest.importorskip("av")
    count = 0
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.flags |= av.codec.context.Flags.output_corrupt
        for packet in container.demux(video=0):
            try:
                count += len(packet.decode())
            except av.FFmpegError:
                continue
    return count


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "fourcc"), [("mp4", "mp4v"), ("avi", "MJPG"), ("avi", "XVID"), ("mkv", "MJPG")])
@pytest.mark.parametrize("spots", [1, 5, 50])
def test_damaged_spots_end_nothing(tmp_path: Path, suffix: str, fourcc: str, spots: int) -> None:
    whole = bytearray(mp4.write_clip(tmp_path / f"a.{suffix}", pictures(250, 320, 240), fourcc))
    dice = random.Random(spots)
    for _ in range(spots):
        at, size = dice.randrange(len(whole) // 8, len(whole) * 9 // 10 - 200), dice.choice([16, 64, 200])
        whole[at : at + size] = dice.randbytes(size)
    (tmp_path / f"b.{suffix}").write_bytes(whole)
    with open_source(str(tmp_path / f"b.{suffix}")) as source:
        frames = read_all(source)
    assert len(frames) >= 0.95 * decodable(tmp_path / f"b.{suffix}")
    assert [frame.index for frame in frames] == list(range(len(frames)))
    if len(frames) < 250 and suffix != "mkv":
        assert source.decode_errors == 250 - len(frames) and "frames could be read" in source.errors[0]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], bytes]:
    """A clip of 250 pictures of moving noise, one key frame: `encoded(suffix, encoder)`."""
    av = pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("encoded")

    def encode(suffix: str, encoder: str) -> bytes:
        path = folder / f"{encoder}.{suffix}"
        if not path.exists():
            noise = np.random.default_rng(1).integers(0, 255, (30, 60, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            options = {"preset": "ultrafast", "g": "250", "x265-params": "log-level=none:keyint=250"}
            with av.open(str(path), "w") as container:
                stream = container.add_stream(encoder, rate=25, options=options)
                stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
                for number in range(250):
                    pixels = np.ascontiguousarray(noise[:, number % 160 : number % 160 + 320])
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                container.mux(stream.encode(None))
        return path.read_bytes()

    return encode


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("spots", [1, 5, 50])
def test_damaged_spots_in_clips_of_today(
    tmp_path: Path, encoded: Callable[[str, str], bytes], suffix: str, encoder: str, spots: int
) -> None:
    whole, dice = bytearray(encoded(suffix, encoder)), random.Random(spots)
    for _ in range(spots):
        at, size = dice.randrange(len(whole) // 8, len(whole) * 9 // 10 - 200), dice.choice([16, 64, 200])
        whole[at : at + size] = dice.randbytes(size)
    (tmp_path / f"b.{suffix}").write_bytes(whole)
    wanted = decodable(tmp_path / f"b.{suffix}")
    with open_source(str(tmp_path / f"b.{suffix}")) as source:
        frames = read_all(source)
    assert wanted > 20 and len(frames) >= 0.95 * wanted
    positions = [frame.position_ns for frame in frames]
    assert positions == sorted(set(positions)) and [frame.index for frame in frames] == list(range(len(frames)))


def test_a_second_decoder_is_closed_too(tmp_path: Path, encoded: Callable[[str, str], bytes]) -> None:
    whole = bytearray(encoded("mp4", "libx265"))
    whole[len(whole) // 4 : len(whole) // 4 + 200] = random.Random(1).randbytes(200)
    (tmp_path / "b.mp4").write_bytes(whole)
    with open_source(str(tmp_path / "b.mp4")) as source:
        frames = read_all(source)
        assert len(frames) >= 0.95 * 250 and source.read() is None
        source.close()
        assert source.read() is None
        source.open()
        assert len(read_all(source)) == len(frames)


def test_a_hole_in_the_file_ends_nothing(tmp_path: Path, encoded: Callable[[str, str], bytes]) -> None:
    """FFmpeg looks for the next packet of a transport stream in 64 kB and gives up; it goes on when asked again."""
    whole = bytearray(encoded("ts", "libx265"))
    whole[len(whole) // 4 : len(whole) // 4 + 200] = random.Random(1).randbytes(200)
    whole[len(whole) // 2 : len(whole) // 2] = bytes(150_000)
    (tmp_path / "b.ts").write_bytes(whole)
    with open_source(str(tmp_path / "b.ts")) as source:
        frames = read_all(source)
        assert len(frames) > 100 and "frames could be read" in source.errors[0]


@pytest.mark.parametrize(("parts", "least"), [("dw", 480), ("wdw", 520)])
def test_damage_in_one_of_several_recordings_takes_nothing_from_the_next(
    tmp_path: Path, encoded: Callable[[str, str], bytes], parts: str, least: int
) -> None:
    """Their clock goes back at the seam, where the second decoder looks for pictures by their time."""
    whole = encoded("ts", "libx265")
    damaged = bytearray(whole)
    for at in range(len(whole) // 3 // 188 * 188, len(whole) // 3 + 6 * 376, 376):
        damaged[at + 8 : at + 188] = bytes(180)
    (tmp_path / "b.ts").write_bytes(b"".join({"w": whole, "d": damaged}[part] for part in parts))
    with open_source(str(tmp_path / "b.ts")) as source:
        assert len(read_all(source)) >= least


@pytest.mark.parametrize(("parts", "lost"), [("ww", False), ("wd", True), ("cw", False)])
def test_damage_behind_a_seam_is_counted(
    tmp_path: Path, encoded: Callable[[str, str], bytes], parts: str, lost: bool
) -> None:
    """OpenCV passes over the rest of that recording (H.265). One that was cut before its key frame has none to lose."""
    whole = encoded("ts", "libx265")
    damaged, middle = bytearray(whole), len(whole) // 3 // 188 * 188
    for at in range(middle, middle + 6 * 376, 376):
        damaged[at + 8 : at + 188] = bytes(180)
    written = {"w": whole, "d": damaged, "c": whole + whole[:376] + whole[middle:]}
    (tmp_path / "b.ts").write_bytes(b"".join(written[part] for part in parts))
    with open_source(str(tmp_path / "b.ts")) as source:
        read = len(read_all(source))
        # Damage has joined two pictures to those before them.
        assert (read < 400 if lost else read == 500) and bool(source.errors) == lost
        assert source.decode_errors == (498 - read if lost else 0)


def test_a_recording_that_begins_in_the_middle_lacks_nothing(tmp_path: Path) -> None:
    """The pictures shown before its key frame are made of others too (open groups of pictures of H.265)."""
    av = pytest.importorskip("av")
    options = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=20:scenecut=0:open-gop=1:bframes=3"}
    with av.open(str(tmp_path / "whole.ts"), "w") as container:
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for pixels in pictures(60, 128, 128):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "whole.ts")) as container:
        coded = [packet for packet in container.demux(video=0) if packet.size]
    second = [number for number, packet in enumerate(coded) if packet.is_keyframe][1]
    assert coded[second + 1].pts < coded[second].pts, "an open group"
    whole = (tmp_path / "whole.ts").read_bytes()
    (tmp_path / "b.ts").write_bytes(whole[:564] + whole[coded[second].pos :] + whole)
    with open_source(str(tmp_path / "b.ts")) as source:
        assert (len(read_all(source)), source.errors, source.decode_errors) == (100, [], 0)


@pytest.mark.slow
def test_a_frame_of_nonsense_is_counted_and_passed(tmp_path: Path) -> None:
    whole = bytearray(mp4.write_clip(tmp_path / "a.avi", pictures(60, 640, 480), "MJPG"))
    starts = [at for at in range(len(whole)) if whole[at : at + 3] == b"\xff\xd8\xff"]
    for number in (20, 21, 40):
        whole[starts[number] : starts[number] + 700] = random.Random(1).randbytes(700)
    (tmp_path / "a.avi").write_bytes(whole)
    with open_source(str(tmp_path / "a.avi")) as source:
        frames = read_all(source)
    assert len(frames) == 57 and source.decode_errors == 3 and source.error_count == 1
    assert frames[-1].position_ns == pytest.approx(59 * 50e6, abs=2e6), "a gap keeps its time"


def codec(name: bytes) -> mp4.Edit:
    return lambda content: (content[:12] + name + content[16:]).replace(b"esds", b"free")


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ({b"stsd": codec(b"av01")}, "is AV1 video, which cannot be decoded here.*H.264"),
        ({b"stsd": codec(b"zzzz")}, "is zzzz video, which cannot be decoded here"),
        ({b"hdlr": lambda content: content[:8] + b"soun" + content[12:]}, "has sound but no pictures"),
        ({b"moov": lambda content: content[: content.index(b"trak") - 4]}, "holds neither pictures nor sound"),
    ],
)
def test_videos_without_a_decoder_say_so(tmp_path: Path, edits: dict, says: str) -> None:
    whole = mp4.write_clip(tmp_path / "a.mp4", pictures(20), "mp4v")
    (tmp_path / "a.mp4").write_bytes(mp4.edited(whole, edits))
    with pytest.raises(SourceError, match=says), open_source(str(tmp_path / "a.mp4")) as source:
        source.read()


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((-1, 0, 0, 1), (0, -1)), ((1, 0, 0, -1), (-1, 0)), ((0, 1, 1, 0), (0, 0)), ((0, -1, -1, 0), (-1, -1))],
)
def test_mirrored_videos_are_turned_back(tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[..., 0] = 255
    picture[:40, :40] = (0, 0, 255)
    whole = mp4.write_clip(tmp_path / "a.mp4", [picture] * 5, "mp4v")
    (tmp_path / "a.mp4").write_bytes(mp4.with_matrix(whole, matrix))
    with open_source(str(tmp_path / "a.mp4")) as source:
        image = source.read().image
    assert image.shape[:2] == ((160, 120) if matrix[0] == 0 else (120, 160))
    assert near(image[corner], (0, 0, 255), 60) and not near(image[-1 - corner[0], -1 - corner[1]], (0, 0, 255), 60)


@pytest.mark.slow
def test_hdr_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = mp4.write_clip(tmp_path / "a.mp4", pictures(5), "mp4v")
    colours = mp4.box(b"colr", b"nclx" + bytes((0, 9, 0, 16, 0, 9, 0)))
    (tmp_path / "a.mp4").write_bytes(mp4.edited(whole, {}, {b"stbl": colours}))
    with open_source(str(tmp_path / "a.mp4")) as source:
        assert source.read() is not None
    assert "HDR" in caplog.text


def test_addresses_of_files_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "my clips").mkdir()
    mp4.write_clip(tmp_path / "my clips/a.avi", pictures(3), "MJPG")
    mp4.write_clip(tmp_path / "100%.avi", pictures(3), "MJPG")
    for address in (f"{tmp_path}/my%20clips/a.avi", f"localhost{tmp_path}/my%20clips/a.avi", f"{tmp_path}/100%.avi"):
        with open_source(f"file://{address}") as source:
            assert len(read_all(source)) == 3
