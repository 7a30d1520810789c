// A matrix product by oneDNN, the yardstick of the benchmarks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <dnnl.hpp>
#include <unordered_map>

#include "core/buffer.h"

namespace orrery::bench {

/// C [m, n] (+)= A [m, k] B [k, n]; A and B may be transposed views. pack_b: B is
/// brought beforehand into the layout that oneDNN prefers. The matrices must outlive
/// it; run() uses oneDNN's OpenMP team.
class DnnlProduct {
 public:
  DnnlProduct(int64_t m, int64_t n, int64_t k, float* a, bool a_transposed, const float* b,
              bool b_transposed, float* c, bool pack_b, bool accumulate)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using dnnl::memory;
    const auto f32 = memory::data_type::f32;
    using Tag = memory::format_tag;
    const memory::desc a_desc({m, k}, f32, a_transposed ? Tag::ba : Tag::ab);
    const memory::desc b_desc({k, n}, f32, b_transposed ? Tag::ba : Tag::ab);
    const memory::desc c_desc({m, n}, f32, Tag::ab);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (accumulate) {
      dnnl::post_ops post;
      post.append_sum(1.0f);
      attr.set_post_ops(post);
    }
    const dnnl::matmul::desc desc(a_desc, pack_b ? memory::desc({k, n}, f32, Tag::any) : b_desc,
                                  c_desc);
    const dnnl::matmul::primitive_desc primitive(desc, attr, engine_);
    memory plain(b_desc, engine_, const_cast<float*>(b));
    memory packed = plain;
    if (primitive.weights_desc() != b_desc) {
      b_buffer_ = Buffer(Device{}, primitive.weights_desc().get_size());
      packed = memory(primitive.weights_desc(), engine_, b_buffer_.data());
      dnnl::reorder(plain, packed).execute(stream_, plain, packed);
      stream_.wait();
    }
    scratch_ = Buffer(Device{}, std::max<size_t>(primitive.scratchpad_desc().get_size(), 64));
    arguments_ = {
        {DNNL_ARG_SRC, memory(a_desc, engine_, a)},
        {DNNL_ARG_WEIGHTS, packed},
        {DNNL_ARG_DST, memory(c_desc, engine_, c)},
        {DNNL_ARG_SCRATCHPAD, memory(primitive.scratchpad_desc(), engine_, scratch_.data())}};
    matmul_ = dnnl::matmul(primitive);
  }

  void run() {
    matmul_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  Buffer b_buffer_, scratch_;
  std::unordered_map<int, dnnl::memory> arguments_;
  dnnl::matmul matmul_;
};

}  // namespace orrery::bench
