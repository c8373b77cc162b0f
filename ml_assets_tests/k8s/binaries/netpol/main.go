// Netpol enforces NetworkPolicies on this node: kube-router's controller for them, without its routing and its proxy.
// It writes rules of iptables and sets of ipset, and takes them back when it is told to stop.
package main

import (
	"context"
	"flag"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "whom to ask, and as whom")
	node := flag.String("hostname-override", "", "the node of which pods are guarded")
	services := flag.String("service-cluster-ip-range", "", "addresses of services")
	klog.InitFlags(nil)
	flag.Parse()
	settings := options.NewKubeRouterConfig()
	settings.HostnameOverride, settings.ClusterIPCIDRs, settings.EnableIPv4 = *node, []string{*services}, true
	if err := run(*kubeconfig, settings); err != nil {
		klog.Fatal(err)
	}
}

func run(kubeconfig string, settings *options.KubeRouterConfig) error {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	tables, sets, err := netpol.NewIPTablesHandlers(settings)
	if err != nil {
		return err
	}
	known := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := known.Core().V1().Pods().Informer(), known.Core().V1().Namespaces().Informer()
	policies := known.Networking().V1().NetworkPolicies().Informer()
	known.Start(stopped.Done())
	known.WaitForCacheSync(stopped.Done())
	var using sync.Mutex
	controller, err := netpol.NewNetworkPolicyController(
		client, settings, pods, policies, namespaces, &using, tables, sets)
	if err != nil {
		return err
	}
	// The one that has run still holds what it wrote last, and would write other programs' rules twice.
	cleaner, err := netpol.NewNetworkPolicyController(
		client, settings, pods, policies, namespaces, &using, tables, sets)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, namespaces: controller.NamespaceEventHandler,
		policies: controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	heartbeats := make(chan *healthcheck.ControllerHeartbeat) // a sync waits until its heartbeat has been taken
	go func() {
		for range heartbeats {
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	go controller.Run(heartbeats, stopped.Done(), &running)
	running.Wait()
	cleaner.Cleanup()
	return nil
}
