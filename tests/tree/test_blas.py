"""BLAS on one thread, whichever thread asks for it."""

from concurrent.futures import ThreadPoolExecutor

import scipy.linalg
from threadpoolctl import ThreadpoolController, threadpool_limits

from tree.blas import use_one_blas_thread


def threads() -> list[int]:
    """How many each library uses: numpy has one, and scipy another."""
    found = ThreadpoolController().select(user_api="blas").info()
    return [int(library["num_threads"]) for library in found]


def test_it_holds_where_another_thread_has_a_limit():
    assert scipy.linalg  # imported: with it comes its library
    try:
        with threadpool_limits(2, "blas"), ThreadPoolExecutor(1) as others:
            assert 2 in threads()
            others.submit(use_one_blas_thread).result()
            assert set(threads()) == {1}
            assert others.submit(threads).result() == threads()
    finally:
        use_one_blas_thread()
