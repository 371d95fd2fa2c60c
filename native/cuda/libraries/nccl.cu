// Loading NCCL; see nccl.h.
#include "nccl.h"

namespace mst::cuda {
namespace {

std::string find_functions(void* library, Nccl& f) {
  return Functions(library)
      .find("ncclGetVersion", f.get_version)
      .find("ncclGetErrorString", f.error_text)
      .find("ncclGetLastError", f.last_error)
      .find("ncclGetUniqueId", f.get_unique_id)
      .find("ncclCommInitRank", f.init_rank)
      .find("ncclCommDestroy", f.destroy)
      .find("ncclCommAbort", f.abort)
      .find("ncclAllReduce", f.all_reduce)
      .find("ncclReduceScatter", f.reduce_scatter)
      .find("ncclAllGather", f.all_gather)
      .find("ncclReduce", f.reduce)
      .find("ncclBroadcast", f.broadcast)
      .find("ncclGroupStart", f.group_start)
      .find("ncclGroupEnd", f.group_end)
      .find("ncclSend", f.send)
      .find("ncclRecv", f.receive)
      .missing();
}

Library<Nccl>& library() {
  static Library<Nccl> nccl({"NCCL 2.18 or newer", "Install it (libnccl2), or `pip install nvidia-nccl-cu13`", {"libnccl.so.2"}, {"nccl"}},
                            find_functions, [](const Nccl&) { return std::string(); });
  return nccl;
}

}  // namespace

const Nccl& nccl() {
  const LibrarySearch found = find_nccl();
  MST_CHECK(found.problem.empty(), "several GPUs: ", found.problem);
  return library().table();
}

LibrarySearch find_nccl() {
  LibrarySearch found = library().search();
  if (found.problem.empty()) return found;
  found.problem += ". Tried:";
  for (const std::string& path : found.tried) found.problem += "\n  " + path;
  return found;
}

}  // namespace mst::cuda
