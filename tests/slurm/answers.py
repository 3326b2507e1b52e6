"""What Slurm's programs print: recorded on a cluster of Slurm 22.05.8, and one with many limits.

The second is written by hand in the same formats, with the limits that the documentation of
large centres describes: closed partitions, mixed nodes, associations by partition.
"""

from slurm.probe import Answers

PMI = """\
MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
\tpmi2
specific pmix plugin versions available: pmix_v4
"""
TAIL = "PreemptMode=REQUEUE SelectTypeParameters=NONE JobDefaults=(null) MaxMemPerNode=UNLIMITED"

RECORDED = Answers(
    config="""\
Configuration data as of 2026-11-21T11:34:02
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = lab
JobRequeue              = 1
MaxArraySize            = 1001
MpiDefault              = none
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at lab is UP
""",
    partitions=(
        "PartitionName=debug AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL "
        "Default=YES QoS=N/A DefaultTime=00:10:00 MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 "
        f"Nodes=node[0-3] State=UP TotalCPUs=256 TotalNodes=4 {TAIL}\n"
        "PartitionName=high AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL "
        "Default=NO QoS=N/A DefaultTime=00:10:00 MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 "
        f"Nodes=node[0-3] State=UP TotalCPUs=256 TotalNodes=4 {TAIL}\n"
    ),
    nodes="debug|4|64|512000|gpu:h100:8|(null)\nhigh|4|64|512000|gpu:h100:8|(null)\n",
    mpi=PMI,
    associations="root||normal|||||\n",
    qualities="normal||||\n",
)

LIMITED = Answers(
    config="""\
AccountingStorageEnforce = associations,limits,qos,safe
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = centre
JobRequeue              = 0
MaxArraySize            = 5000
MpiDefault              = cray_shasta
SLURM_VERSION           = 24.11.5
""",
    partitions=(
        "PartitionName=standard-g AllowAccounts=chem,phys AllowQos=normal,long Default=NO "
        f"MaxNodes=1024 MaxTime=2-00:00:00 MinNodes=2 State=UP TotalNodes=2978 {TAIL}\n"
        "PartitionName=dev-g AllowAccounts=ALL DenyAccounts=guests DenyQos=long Default=YES "
        f"MaxNodes=32 MaxTime=03:00:00 MinNodes=0 State=UP TotalNodes=48 {TAIL}\n"
        "PartitionName=old AllowAccounts=ALL AllowQos=ALL Default=NO "
        f"MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 State=DOWN TotalNodes=1 {TAIL}\n"
    ),
    nodes=(
        "standard-g|2978|128|480000+|gpu:mi250:8(S:0-3)|AMD_EPYC_7A53,x1101\n"
        "dev-g|40|128|480000|gpu:mi250:8(S:0-3)|(null)\n"
        "dev-g|8|64+|240000|gpu:a100:4,lustre:1|nvme\n"
        "old|1|16|64000|(null)|(null)\n"
    ),
    mpi="srun: MPI types are...\nsrun: pmi2\nsrun: cray_shasta\nsrun: none\n",
    associations="chem|standard-g|long,normal|normal|1-00:00:00|gres/gpu=64,node=8|4|100\n"
    "phys||normal|||||\n",
    qualities="normal||||\nlong|2-00:00:00|cpu=8,gres/gpu=16,node=2|1|10\n",
)
