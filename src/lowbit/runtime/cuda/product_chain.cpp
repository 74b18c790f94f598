#include "lowbit/runtime/cuda/product_chain.h"

namespace lowbit::cuda {

void ProductChain::run(const std::function<void()>& calls) {
  drop();
  open_ = longest_ > 0;
  try {
    calls();
    flush();
  } catch (...) {
    drop();
    throw;
  }
  drop();
}

bool ProductChain::product(const PackedMatrix& matrix, const float* x, float* y) {
  if (!open_) return false;
  ChainLink link;
  link.matrix = matrix;
  link.x = x;
  link.y = y;
  const bool normed = normed_ && norm_.normed == x && norm_cols_ == matrix.cols;
  if (normed) {
    link.x = norm_.x;
    link.norm = norm_.norm;
    link.eps = norm_.eps;
    link.normed = norm_.normed;
  }
  if (!chain_fits(link, shared_bytes_)) return false;  // the caller flushes
  if (launch_.count > 0 &&
      (!chains(launch_.links[0].matrix, matrix) || launch_.count == longest_)) {
    if (normed) {
      // The sum has its kernel; the norm can go with this product.
      normed_ = false;
      launch();
    } else {
      flush();
    }
  }
  if (normed_ && !normed) flush();
  normed_ = false;
  launch_.links[launch_.count++] = link;
  return true;
}

bool ProductChain::add_rms_norm(float* residual, const float* hidden, const float* weight, int cols,
                                float eps, float* out) {
  ChainLink* before = last();
  if (normed_ || before == nullptr || before->output != ChainLink::Output::kStore ||
      before->y != hidden || out != hidden || before->matrix.rows != cols) {
    return false;
  }
  before->output = ChainLink::Output::kAdd;
  before->y = residual;
  norm_ = {};
  norm_.x = residual;
  norm_.norm = weight;
  norm_.eps = eps;
  norm_.normed = out;
  norm_cols_ = cols;
  normed_ = true;
  return true;
}

bool ProductChain::silu_mul(const float* gate_up, int cols, float* out) {
  ChainLink* before = last();
  if (normed_ || before == nullptr || before->output != ChainLink::Output::kStore ||
      before->y != gate_up || before->matrix.rows != 2 * cols) {
    return false;
  }
  ChainLink gated = *before;
  gated.output = ChainLink::Output::kGate;
  gated.y = out;
  gated.products = before->y;
  if (!chain_fits(gated, shared_bytes_)) return false;
  *before = gated;
  return true;
}

void ProductChain::flush() {
  if (normed_) {
    // No product followed: the last one's output goes where the norm's own kernel reads it.
    ChainLink* before = last();
    before->output = ChainLink::Output::kStore;
    before->y = norm_.normed;
  }
  if (launch_.count > 0) launch();
  if (normed_) {
    normed_ = false;
    launch_add_rms_norm(const_cast<float*>(norm_.x), norm_.normed, norm_.norm, 1, norm_cols_,
                        norm_.eps, norm_.normed, stream_);
  }
}

void ProductChain::drop() {
  launch_.count = 0;
  normed_ = open_ = false;
}

void ProductChain::launch() {
  launch_linear_chain(launch_, processors_, shared_bytes_, stream_);
  launch_.count = 0;
}

}  // namespace lowbit::cuda
