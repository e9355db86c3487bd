"""Where jobs are worked on: on this machine, later on a cluster; one file each."""
