"""Study files of the published settings, and of the embedded pair; `diptych study init NAME` prints one."""
