#!/bin/bash
# The service with a real V4L2 device, in the rigs' virtual machine; started by test_systemd_camera.py. /work holds `root`
# (a Debian with systemd) and `edge` (the project's packages), /opt/venv what they need.
set -euo pipefail
modprobe vivid
cp -r /work/edge /opt/edge
mkdir /tmp/view
cat >/tmp/prepare <<'END'
useradd --create-home maker
cat >/usr/local/bin/edge-mnv2 <<SCRIPT
#!/mnt/venv/bin/python
import sys
sys.path.insert(0, "/mnt/edge")
from edge_mnv2.cli.app import main
main()
SCRIPT
chmod +x /usr/local/bin/edge-mnv2
END
ls -l /dev/video0
ROOT=/work/root STICK=/opt NODES=video0 PREPARE=/tmp/prepare bash /work/tests/rigs/boot_systemd.sh /tmp/view &
booted=$!
systemd=''
for _ in $(seq 60); do
  sleep 1
  systemd=$(cut -d' ' -f1 "/proc/$booted/task/$booted/children" || true)
  if [ -n "$systemd" ] && [ "$(cat "/proc/$systemd/comm")" = systemd ] &&
    nsenter -t "$systemd" -a --root --wd systemctl is-system-running | grep -qE 'running|degraded'; then
    break
  fi
done
inside() { nsenter -t "$systemd" -a --root --wd env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }
edge() { inside edge-mnv2 service "$@" || echo "rc $?"; }
edge install --run-as maker --camera /dev/video0 --size 640x480 --watchdog 120 --log /home/maker/log.jsonl
sleep 10
edge status
inside tail -n 1 /home/maker/log.jsonl
# Without the camera's class among the allowed devices the same command must fail: the fence stands.
inside sh -c 'sed -i /video4linux/d /etc/systemd/system/edge-mnv2.service && systemctl daemon-reload'
inside systemctl restart edge-mnv2 || echo "refused without DeviceAllow"
edge logs -n 8
kill -9 "$booted"
