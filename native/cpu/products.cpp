// See products.h.
#include "products.h"

namespace mst::cpu {
namespace {

dnnl::memory::data_type data_type(Dtype dtype) {
  return dtype == Dtype::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// Throws dnnl::error if oneDNN has no such product on this CPU.
Primitive make_primitive(const Product& p, const dnnl::engine& engine) {
  const dnnl::memory::desc a({p.m, p.k}, data_type(p.dtype), {p.a.row, p.a.col});
  const dnnl::memory::desc b({p.k, p.n}, data_type(p.dtype), {p.b.row, p.b.col});
  const dnnl::memory::desc c({p.m, p.n}, data_type(p.c_dtype), {p.c_stride, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (p.alpha != 1) attributes.set_output_scales(0, {p.alpha});
  if (p.beta != 0) {
    dnnl::post_ops sum;
    sum.append_sum(p.beta);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::primitive_desc description({a, b, c}, attributes, engine);
  return {a, b, c, description.scratchpad_desc(), dnnl::matmul(description), description.impl_info_str()};
}

}  // namespace

const Primitive* Products::find(const Product& product) {
  constexpr std::size_t max_primitives = 512;
  if (primitives_.size() > max_primitives) primitives_.clear();
  const auto [place, is_new] = primitives_.try_emplace(product);
  if (is_new) {
    try {
      place->second = make_primitive(product, engine_);
    } catch (const dnnl::error&) {  // remembered as absent
    }
  }
  return place->second ? &*place->second : nullptr;
}

void Products::execute(const Primitive& primitive, void* a, void* b, void* c, void* scratchpad) {
  primitive.matmul.execute(stream_, {{DNNL_ARG_SRC, {primitive.a, engine_, a}},
                                     {DNNL_ARG_WEIGHTS, {primitive.b, engine_, b}},
                                     {DNNL_ARG_DST, {primitive.c, engine_, c}},
                                     {DNNL_ARG_SCRATCHPAD, {primitive.scratchpad, engine_, scratchpad}}});
  stream_.wait();
}

}  // namespace mst::cpu
