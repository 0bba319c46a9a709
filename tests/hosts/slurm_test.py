"""The batch files on a real Slurm: a controller, a node and munge of our own, on this machine, gone when the test ends."""
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from program import PROGRAM, ProgramTest, annulus, needs

needs("h5py", "numpy")
os.environ["PATH"] += ":/usr/sbin:/sbin"
for name in ["slurmctld", "slurmd", "munged", "sbatch", "mpirun"]:
    if shutil.which(name) is None:
        print(f"skipped: there is no {name} here (Debian: slurmctld slurmd slurm-client munge)")
        sys.exit(0)
if os.geteuid() != 0:
    print("skipped: slurmd runs as root")
    sys.exit(0)

import h5py
import numpy as np
import tensors

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = socket.gethostname().split(".")[0]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def die_with_the_test():
    """Even when the test is killed its daemons get SIGTERM (prctl, PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


CONFIGURATION = """
ClusterName=annulus
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={room}/munge.socket
StateSaveLocation={room}/state
SlurmdSpoolDir={room}/spool
SlurmctldPidFile={room}/slurmctld.pid
SlurmdPidFile={room}/slurmd.pid
SlurmctldLogFile={room}/slurmctld.log
SlurmdLogFile={room}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""
GPUS = "NodeName={host} Name=gpu File=/dev/null,/dev/zero\n"  # Slurm counts and numbers files, whatever they are


class Slurm(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.room = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="annulus-slurm-")))
        cls.room.chmod(0o755)
        (cls.room / "state").mkdir()
        key = cls.room / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (cls.room / "slurm.conf").write_text(CONFIGURATION.format(host=HOST, room=cls.room, cpus=os.cpu_count(),
                                                                  controller_port=free_port(), node_port=free_port()))
        (cls.room / "gres.conf").write_text(GPUS.format(host=HOST))
        os.environ["SLURM_CONF"] = str(cls.room / "slurm.conf")
        cls.daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={cls.room}/munge.socket",
                   f"--pid-file={cls.room}/munge.pid", f"--log-file={cls.room}/munge.log", f"--seed-file={cls.room}/munge.seed")
        cls.wait_for(lambda: (cls.room / "munge.socket").exists(), 10, "munged")
        cls.daemon("slurmctld", "-D")
        cls.daemon("slurmd", "-D", "-N", HOST)
        cls.wait_for(lambda: "idle" in cls.say("sinfo", "--noheader", "--format=%T"), 40, "the node")

    @classmethod
    def daemon(cls, *command):
        with (cls.room / "daemons.log").open("a") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
                                       preexec_fn=die_with_the_test)

        def end():
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        cls.addClassCleanup(end)

    @staticmethod
    def say(*command):
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    @classmethod
    def wait_for(cls, holds, seconds, what):
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                logs = "".join(f"\n{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in cls.room.glob("*.log"))
                raise AssertionError(f"{what}: not there after {seconds} s{logs}")
            time.sleep(0.2)

    def submit(self, folder, *arguments, gpus=0, **environment):
        """Submits cpu.sbatch, or gpu.sbatch, for two ranks from a tree whose path has a blank; returns the job's number."""
        kind = [f"--gpus-per-node={gpus}", str(ROOT / "launch/slurm/gpu.sbatch")] if gpus else [str(ROOT / "launch/slurm/cpu.sbatch")]
        done = subprocess.run(["sbatch", "--parsable", "--ntasks-per-node=2", "--cpus-per-task=1", "--time=5", f"--output={folder}/job.log",
                               *kind, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
                              env={**os.environ, "ANNULUS": PROGRAM, "ANNULUS_ROOT": str(ROOT), **environment})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def state(self, job):
        fields = dict(part.split("=", 1) for part in self.say("scontrol", "show", "job", job).split() if "=" in part)
        return fields.get("JobState", ""), fields.get("ExitCode", ""), int(fields.get("Restarts", -1))

    def ends(self, job):
        self.wait_for(lambda: self.state(job)[0] in ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"], 90, f"job {job}")

    def folder(self, name, tokens=400):
        folder = self.scratch / name
        folder.mkdir()
        random = np.random.default_rng(20264)
        tensors.write(folder / "in put.h5", **tensors.random_tensors(random, tokens, tokens, 16, 16, 64, 64, dout=True))
        return folder

    def test_a_batch_job_with_either_launcher(self):
        for launcher in ["srun", "mpirun"]:
            with self.subTest(launcher=launcher):
                folder = self.folder(f"a room for {launcher}")
                job = self.submit(folder, "attend", "in put.h5", "--output", "out put.h5", LAUNCHER=launcher)
                self.ends(job)
                log = (folder / "job.log").read_text()
                self.assertEqual(self.state(job)[:2], ("COMPLETED", "0:0"), log)
                with h5py.File(folder / "out put.h5") as result:
                    self.assertEqual((result.attrs["ranks"], result.attrs["transport"]), (2, "shared"), log)
                self.succeeds("verify", folder / "out put.h5")

    def test_a_job_whose_time_is_nearly_up_stops_and_is_queued_again(self):
        for launcher, gpus in [("mpirun", 0), ("srun", 0), ("srun", 2)]:
            with self.subTest(launcher=launcher, gpus=gpus):
                folder = self.folder(f"stopped {launcher} {gpus}", tokens=9000)  # many seconds a step: ranks stop between steps
                job = self.submit(folder, "attend", "in put.h5", "--output", "out.h5", "--backward", "--mask", "full", "--kernel",
                                  "tiled-portable", "--ranks", 2, gpus=gpus, LAUNCHER=launcher)
                log = folder / "job.log"
                self.wait_for(lambda: any("partial" in p.name for p in folder.iterdir()), 60, f"job {job} at work")
                time.sleep(1)
                self.say("scancel", "--batch", "--signal=USR1", job)  # what --signal=B:USR1@120 sends
                self.wait_for(lambda: "goes back into the queue" in log.read_text(), 90, f"job {job} stopped")
                self.wait_for(lambda: self.state(job)[2] == 1, 60, f"job {job} in the queue again")
                self.say("scancel", job)
                self.wait_for(lambda: self.state(job)[0] in ["CANCELLED", "FAILED"], 60, f"job {job} gone")
                self.assertIn("stopped on request", log.read_text())
                self.assertFalse((folder / "out.h5").exists())

    def test_every_rank_of_a_gpu_job_sees_all_gpus_of_its_node(self):
        """The program takes the one whose number is its rank on the node; here a script in its place says what it could take."""
        for launcher in ["srun", "mpirun"]:
            with self.subTest(launcher=launcher):
                folder = self.folder(f"gpus for {launcher}", tokens=8)
                program = folder / "say"
                program.write_text(f'#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES" >"{folder}/rank ${{PMIX_RANK:-$OMPI_COMM_WORLD_RANK}}"\n')
                program.chmod(0o755)
                job = self.submit(folder, gpus=2, LAUNCHER=launcher, ANNULUS=str(program))
                self.ends(job)
                log = (folder / "job.log").read_text()
                self.assertEqual(self.state(job)[:2], ("COMPLETED", "0:0"), log)
                for rank in [0, 1]:
                    self.assertEqual((folder / f"rank {rank}").read_text(), "0,1\n", log)

    def test_a_gpu_job_without_a_driver_says_so_and_is_not_queued_again(self):
        arguments = ["attend", "in put.h5", "--output", "out.h5", "--device", "cuda"]
        alone = annulus(*arguments, cwd=self.folder("alone"))
        if alone.returncode == 0:
            self.skipTest("there is a GPU here")
        reason = alone.stderr.strip().removeprefix("annulus: ")
        self.assertIn("--device cuda needs a GPU for every rank: ", reason)
        for launcher in ["srun", "mpirun"]:
            with self.subTest(launcher=launcher):
                folder = self.folder(f"no driver {launcher}")
                job = self.submit(folder, *arguments, gpus=2, LAUNCHER=launcher)
                self.ends(job)
                log = (folder / "job.log").read_text()
                self.assertEqual(self.state(job), ("FAILED", "2:0", 0), log)
                self.assertEqual(log.count(reason), 1, log)
                self.assertFalse((folder / "out.h5").exists())


if __name__ == "__main__":
    unittest.main()
