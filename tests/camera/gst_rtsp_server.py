"""A real RTSP camera for tests: GStreamer's server. Run it with the system's Python, which knows `gi`.

usage: gst_rtsp_server.py [--digest | --basic] [--protocols tcp|udp|both] [--stream video|audio]
Prints its port, then serves /stream until its standard input is closed.
"""

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

USER, PASSWORD = "admin", "s3cret word"
STREAMS = {
    "video": "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=20/1 ! "
    "x264enc tune=zerolatency key-int-max=20 ! rtph264pay name=pay0 pt=96",
    "audio": "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--digest", action="store_true")
    parser.add_argument("--basic", action="store_true")
    parser.add_argument("--protocols", choices=("tcp", "udp", "both"), default="both")
    parser.add_argument("--stream", choices=sorted(STREAMS), default="video")
    parser.add_argument("--port", default="0")
    asked = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(asked.port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {STREAMS[asked.stream]} )")
    factory.set_shared(True)
    transports = {"tcp": GstRtsp.RTSPLowerTrans.TCP, "udp": GstRtsp.RTSPLowerTrans.UDP}
    if asked.protocols != "both":
        factory.set_protocols(transports[asked.protocols])
    if asked.digest or asked.basic:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        if asked.digest:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(USER, PASSWORD, token)
        else:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
        server.set_auth(auth)
        rights = Gst.Structure.new_empty("user")
        rights.set_value("media.factory.access", True)
        rights.set_value("media.factory.construct", True)
        factory.add_role_from_structure(rights)
    server.get_mount_points().add_factory("/stream", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
