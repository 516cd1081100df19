"Losses, metrics and predictions of the three networks, at odd sizes and at the edges."
import cv2, numpy as np, pytest, torch
from dim_nb.matting import MattingLoss, OwnTrimaps, alpha_loss, known_mad, laplacian_loss, matting_unet, predict_alpha, unknown_mad
from dim_nb.refine import RefineNet, RefinedMatting, refine_alpha
from dim_nb.trimap_net import TrimapLoss, predict_trimap, trimap_probs, trimap_unet
from dim_nb.trimaps import settle_known

THIN = dict(decoder='thin', widths=[16,16,8,8,8])
def picture(h, w): return np.random.default_rng(h*w).integers(0, 255, (h,w,3), dtype=np.uint8)

@pytest.mark.parametrize('size', [(64,64), (75,61), (33,200)])
def test_predictions_have_the_pictures_size(size):
    image = picture(*size)
    trimap = predict_trimap(trimap_unet(**THIN).eval(), image, 64)
    assert trimap.shape == size and trimap.dtype == np.uint8 and set(np.unique(trimap)) <= {0,128,255}
    alpha = predict_alpha(matting_unet(**THIN).eval(), image, trimap)
    assert alpha.shape == size and alpha.dtype == np.float32 and 0 <= alpha.min() and alpha.max() <= 1
    for guide in (True, False):
        fine = refine_alpha(RefineNet(8, 3, guide), image, alpha)
        assert fine.shape == size and 0 <= fine.min() and fine.max() <= 1

def test_the_mirror_image_gets_the_mirrored_answer():
    "Where both glances have one size, a picture and its mirror image are the same two pictures"
    net, image, mirror = trimap_unet(**THIN).eval(), picture(64, 96), picture(64, 96)[:,::-1].copy()
    assert np.allclose(trimap_probs(net, image, 96, (1,1))[:,::-1], trimap_probs(net, mirror, 96, (1,1)), atol=1e-4)

def test_a_look_is_the_mean_of_its_glances():
    net, image = trimap_unet(**THIN).eval(), picture(416, 352)
    glances = [trimap_probs(net, image, size, (1,)) for size in (416, 320)]
    glances.insert(1, trimap_probs(net, image[:,::-1].copy(), 352, (1,))[:,::-1])
    mean = sum(cv2.resize(np.ascontiguousarray(o), glances[0].shape[1::-1]) for o in glances)/3
    assert np.allclose(trimap_probs(net, image), mean, atol=1e-4)

def test_the_defaults_fit_the_old_shipped_files():
    assert trimap_unet().spec == dict(decoder='dynamic', encoder='lite0', n_in=3, n_out=3, last_cross=False, y_range=None)
    assert matting_unet().spec == dict(decoder='dynamic', encoder='lite0', n_in=4, n_out=1, last_cross=True, y_range=[-.02,1.02])

def test_trimap_loss_is_the_weighted_cross_entropy():
    pred, target = torch.randn(2,3,4,5), torch.randint(0, 3, (2,4,5))
    loss = TrimapLoss((1.,3.,2.))
    want = torch.nn.functional.cross_entropy(pred, target, weight=torch.tensor([1.,3.,2.]))
    assert torch.allclose(torch.as_tensor(loss(pred, target)), want)
    assert torch.allclose(loss.activation(pred).sum(1), torch.ones(2,4,5)) and loss.decodes(pred).shape == (2,4,5)

def planes_of(trimap, fg=.8, bg=.2): return torch.cat([torch.full((1,3,*trimap.shape[-2:]), fg), torch.full((1,3,*trimap.shape[-2:]), bg), trimap], 1)

def test_known_pixels_count_as_told():
    trimap = torch.tensor([[[[1.,1.],[0.,128/255]]]])
    target = torch.tensor([[[[1.,0.],[0.,.5]]]])                      # the second is declared wrongly
    weight = MattingLoss(known=.1, wrong=.7).weight(target, planes_of(trimap))
    assert torch.allclose(weight, torch.tensor([[[[.1,.7],[.1,1.]]]]))
    pred = target + torch.tensor([[[[0.,.4],[0.,.2]]]])
    assert torch.isclose(unknown_mad(pred, target, planes_of(trimap)), torch.tensor(.2))
    assert torch.isclose(known_mad(pred, target, planes_of(trimap)), torch.tensor(.4/3))

def test_losses_are_finite_where_nothing_is_unknown_and_in_half_precision():
    empty = torch.zeros(1,1,8,8)
    assert alpha_loss(empty+.3, empty, empty) == 0 and laplacian_loss(empty+.3, empty, empty) == 0
    pred = torch.full((1,1,8,8), .5, dtype=torch.float16, requires_grad=True)
    MattingLoss()(pred, torch.full((1,1,8,8), .5), planes_of(torch.full((1,1,8,8), 128/255))).backward()
    assert torch.isfinite(pred.grad).all()

def test_the_frozen_network_stands_still_and_the_rest_learns():
    both = RefinedMatting(matting_unet(**THIN), RefineNet(8))
    before = {k: v.clone() for k,v in both.matting.state_dict().items()}
    torch.nn.init.normal_(both.refine.convs[-1].weight)
    both.train()
    both(torch.rand(2,4,32,32)).mean().backward()
    assert all(torch.equal(v, before[k]) for k,v in both.matting.state_dict().items())
    assert all(p.grad is None for p in both.matting.parameters())
    assert both.refine.convs[0][0].weight.grad.abs().sum() > 0
    joint = RefinedMatting(matting_unet(**THIN), RefineNet(8), freeze=False).train()
    joint(torch.rand(2,4,32,32)).mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in joint.matting.parameters())

def test_the_refinement_sees_what_the_pipeline_will_give_it():
    class Copy(torch.nn.Module):
        def forward(self, rgb, rough): return rough
    rough = torch.tensor([[[[.95,.5],[.08,.3]]]])
    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))
        def forward(self, x): return rough
    trimap = torch.tensor([[[[1.,1.],[0.,128/255]]]])
    x = torch.cat([torch.rand(1,3,2,2), trimap], 1)
    assert torch.equal(RefinedMatting(Given(), Copy())(x), settle_known(rough, trimap))

def test_a_share_of_the_samples_gets_the_networks_own_trimaps():
    from types import SimpleNamespace
    callback = OwnTrimaps(trimap_unet(**THIN), share=1.)
    x, planes = torch.rand(4,4,32,32), torch.rand(4,7,32,32)
    callback.learn = SimpleNamespace(x=x, yb=(None, planes), training=True)
    callback.before_batch()
    assert torch.equal(x[:,3], planes[:,6]) and set(x[:,3].unique().tolist()) <= {0., 1., torch.tensor(128/255).item()}
    kept = x.clone()
    callback.learn.training = False
    callback.before_batch()
    assert torch.equal(x, kept)
