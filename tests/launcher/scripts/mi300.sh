#!/bin/bash
#SBATCH --job-name=rl-mi300
#SBATCH --ntasks-per-node=2
# An often copied way to start reinforcement learning on MI300X nodes, variable by variable.
export NCCL_DEBUG=TRACE
export GPU_MAX_HW_QUEUES=2
export TORCH_NCCL_HIGH_PRIORITY=1
export NCCL_CHECKS_DISABLE=1
export NCCL_IB_HCA=mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4,mlx5_5,mlx5_8,mlx5_9
export NCCL_IB_GID_INDEX=3
export NCCL_CROSS_NIC=0
export CUDA_DEVICE_MAX_CONNECTIONS=1
export NCCL_PROTO=Simple
export RCCL_MSCCL_ENABLE=0
export TOKENIZERS_PARALLELISM=false
export HSA_NO_SCRATCH_RECLAIM=1
export HIP_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
export ROCR_VISIBLE_DEVICES=$HIP_VISIBLE_DEVICES
export CUDA_VISIBLE_DEVICES=$HIP_VISIBLE_DEVICES
docker image prune -f
docker run --rm -d --privileged --network host \
  -e HYDRA_FULL_ERROR=1 \
  -e RAY_EXPERIMENTAL_NOSET_ROCR_VISIBLE_DEVICES=1 \
  -e TRANSFORMERS_CACHE=/data/hub \
  -e HF_HOME=/data/hub \
  -e WANDB_API_KEY=0123456789abcdef \
  image bash -c 'sleep inf'
printenv
python3 -m trainer 2>&1 | tee run.log
